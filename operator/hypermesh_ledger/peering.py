"""The other ledgers: who they are, which chain they are on, and how far they have come.

    --peers -> Peer call over TLS -> genesis, node id, p2p port -> persistent_peers of CometBFT, genesis of a new home

All ledgers get the same list. Only the first of it may begin a chain, and only when every other one has answered that
it has none: a founder that lost its volume joins the chain that the others still have. What was learned is kept in
config/peers.json, so that a restart needs nobody's answer.

CometBFT dials whom it is told of when it starts, at the address they have then. So whoever answers us and is not
connected, be it that it was not known yet or that its address has changed, is dialled again and again: of ledgers that
start in any order, each is soon connected with each, and no one of them is needed for the others to meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.files import write_durably
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_ledger import joining, rpc
from hypermesh_ledger.errors import CometbftSilent, HomeMismatch
from hypermesh_ledger.genesis import chain_id_of, genesis_of
from hypermesh_ledger.home import RPC_SOCKET
from hypermesh_ledger.joining import GoOn, Own, Replay, Restore, Stale, Trust, Wait, agreed, decide

_log = logging.getLogger(__name__)

KNOWN: Final = Path("config/peers.json")
GENESIS: Final = Path("config/genesis.json")
ASK_S: Final = 3.0
AGAIN_S: Final = 1.0
LOOK_S: Final = 3.0
TELL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the options say. targets: host:port of the other ledgers' service; listen: [ipv6]:port for CometBFT."""

    listen: str
    targets: tuple[str, ...]
    founder: bool
    tls_name: str | None

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


def plan(listen: str | None, peers: str, name: str, tls_name: str | None) -> Plan | None:
    """None for a lone validator. name: which of the comma-separated peers we are, by target or by first DNS label."""
    if listen is None:
        return None
    every = [target for target in peers.split(",") if target]
    mine = [target for target in every if name and name in (target, target.split(".")[0])]
    others = tuple(target for target in every if target not in mine)
    return Plan(listen, others, not others or every[:1] == mine, tls_name)


@dataclass(frozen=True, slots=True)
class Beginning:
    """document: a peer's genesis file, None for one's own or a new one. trust: of a snapshot that is to be restored."""

    document: dict[str, Any] | None
    trust: Trust | None


class Peers:
    """One client for each other ledger."""

    def __init__(self, plan: Plan, ca_pem: bytes) -> None:
        self._clients = {target: LedgerClient(target, ca_pem, plan.tls_name) for target in plan.targets}
        self._plan = plan
        self.best = 0
        """The greatest height that a peer told in the newest round."""
        self.common = 0
        """The greatest that more than half of those with a chain told to have reached: one alone can't make it up."""
        self.answering = 0
        """How many answered in it."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._clients)

    async def follow(self, behind: Callable[[], int]) -> None:
        """Keeps `best`, what config/peers.json knows, and CometBFT's connections, for ever.

        behind: our height while peers should know that we are behind; 0 otherwise.
        """
        while True:
            answers = await self._ask(behind())
            self.best, self.common = heights(answers)
            self.answering = len(answers)
            with contextlib.suppress(OSError):  # a full volume; learned again at the next start
                _remember(answers)
            with contextlib.suppress(CometbftSilent):
                await _connect(answers)
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Close the channels."""
        for client in self._clients.values():
            await client.close()

    async def introduce(self, root_public: bytes, own: Own) -> Beginning:
        """Learn ids, and how to begin: see joining. Waits without end for what it needs, and says so.

        Raises HomeMismatch.
        """
        loop = asyncio.get_running_loop()
        began = told = loop.time()
        while True:
            answers = await self._ask()
            self.best, self.common = heights(answers)
            _remember(answers)
            founder = self._plan.founder
            step = decide(own, answers, len(self._clients), founder, loop.time() - began)
            reason = step.reason if isinstance(step, Wait) else "peers that answer do not agree on a header"
            if isinstance(step, GoOn):
                return Beginning(None, None)
            if isinstance(step, Stale):
                raise HomeMismatch(
                    f"This directory is at height {own.height} and knows only itself as validator, its peers are at "
                    f"{step.best}: an older copy, such as a backup from before the ledger grew. Its key may have "
                    "signed these heights, so it does not sign them again: begin with an empty directory."
                )
            if isinstance(step, Replay):
                return Beginning(checked(step.target, step.genesis, root_public), None)
            if isinstance(step, Restore):
                document = checked(step.target, step.genesis, root_public)
                _same_chain(document)
                trust = await agreed(self._clients, answers, step.heights)
                if trust is not None:
                    _tell_restore(own, step, trust, sorted(target for target, each in answers.items() if each.height))
                    return Beginning(document, trust)
                if own.height and not own.interrupted and loop.time() - began > joining.PATIENCE_S:
                    return Beginning(None, None)  # nothing is given up; asked again when no block comes
            if loop.time() - told > TELL_S:
                told = loop.time()
                missing = sorted(self._clients.keys() - answers.keys())
                _log.warning("can't begin yet: %s; without an answer: %s", reason, missing or "nobody")
            await asyncio.sleep(AGAIN_S)

    def clients(self) -> list[LedgerClient]:
        """In the order of the list."""
        return list(self._clients.values())

    async def _ask(self, height: int = 0) -> dict[str, ledger_pb2.PeerResponse]:
        async def one(client: LedgerClient) -> ledger_pb2.PeerResponse | None:
            with contextlib.suppress(LedgerUnavailable):
                return await client.peer(ASK_S, height)
            return None

        answers = await asyncio.gather(*map(one, self._clients.values()))
        return {target: each for target, each in zip(self._clients, answers, strict=True) if each is not None}


def heights(answers: dict[str, ledger_pb2.PeerResponse]) -> tuple[int, int]:
    """See Peers.best and Peers.common."""
    told = sorted((each.height for each in answers.values() if each.height), reverse=True)
    return (told[0], told[len(told) // 2]) if told else (0, 0)


def checked(target: str, genesis: bytes, root_public: bytes) -> dict[str, Any]:
    """A peer's genesis file, when it is of our federation. Raises HomeMismatch."""
    try:
        document = json.loads(genesis)
        chain_id = str(document["chain_id"])
        encoded = str(document["app_state"]["genesis"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeMismatch(
            f"The ledger at {target} answers with no genesis of ours. See whom --peers names."
        ) from error
    if genesis_of(encoded).root_public_key != root_public:
        text = f"The ledger at {target} is of chain {chain_id}, another federation than {chain_id_of(root_public)}."
        raise HomeMismatch(f"{text} Take it out of --peers, or give this ledger that federation's root.")
    return dict(document)


def _same_chain(document: dict[str, Any]) -> None:
    """Nothing of one chain makes way for another. Raises HomeMismatch."""
    if GENESIS.exists() and (held := json.loads(GENESIS.read_text())["chain_id"]) != document["chain_id"]:
        raise HomeMismatch(
            f"This directory holds chain {held}, its peers are on {document['chain_id']}. See whom --peers names, or "
            "begin with an empty directory."
        )


def _tell_restore(own: Own, step: Restore, trust: Trust, vouching: list[str]) -> None:
    if step.away and not own.interrupted:
        _log.warning(
            "this ledger is at height %d, and its peers keep no block that follows: its blocks and state are replaced "
            "by theirs; its keys and what it has signed stay",
            own.height,
        )
    _log.info("restoring a snapshot; block %d (%s) is vouched for by %s", trust.height, trust.hash, ", ".join(vouching))


def persistent_peers() -> str:
    """CometBFT's list, of all that config/peers.json knows."""
    known: dict[str, str] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    return ",".join(known[target] for target in sorted(known))


def _remember(answers: dict[str, ledger_pb2.PeerResponse]) -> None:
    known: dict[str, str] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    learned = {target: _address(target, each) for target, each in answers.items() if _plausible(each)}
    if known | learned != known:
        write_durably(KNOWN, json.dumps(known | learned).encode(), 0o644)


async def _connect(answers: dict[str, ledger_pb2.PeerResponse]) -> None:
    """Dial whom CometBFT is not connected with; one at height 0 is about to start, and dials. Raises CometbftSilent."""
    here = {
        each.node_id: _address(target, each) for target, each in answers.items() if each.height and _plausible(each)
    }
    if missing := here.keys() - await rpc.connected(RPC_SOCKET):
        await rpc.dial(RPC_SOCKET, [here[each] for each in sorted(missing)])


def _address(target: str, answer: ledger_pb2.PeerResponse) -> str:
    return f"{answer.node_id}@{target.rpartition(':')[0]}:{answer.p2p_port}"


def _plausible(answer: ledger_pb2.PeerResponse) -> bool:
    """It goes into a configuration file."""
    digits = set("0123456789abcdef")
    return len(answer.node_id) == 40 and set(answer.node_id) <= digits and 0 < answer.p2p_port < 65536
