"""The other ledgers: who they are, which chain they are on, and how far they have come.

    --peers -> Peer call over TLS -> genesis, node id, p2p port -> persistent_peers of CometBFT, genesis of a new home

All ledgers get the same list. Only the first of it may begin a chain, and only when every other one has answered that
it has none: a founder that lost its volume joins the chain that the others still have. What was learned is kept in
config/peers.json, so that a restart needs nobody's answer. Whom we do not reach now dials us when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.files import write_durably
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_ledger.errors import HomeMismatch
from hypermesh_ledger.genesis import chain_id_of, genesis_of

_log = logging.getLogger(__name__)

KNOWN: Final = Path("config/peers.json")
ASK_S: Final = 3.0
AGAIN_S: Final = 1.0
PATIENCE_S: Final = 6.0
"""Longest time that a ledger which has its chain waits for peers' ids before it starts without them."""
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


class Peers:
    """One client for each other ledger."""

    def __init__(self, plan: Plan, ca_pem: bytes) -> None:
        self._clients = {target: LedgerClient(target, ca_pem, plan.tls_name) for target in plan.targets}
        self._plan = plan
        self.best = 0
        """The greatest height that a peer told in the newest round."""
        self.answering = 0
        """How many answered in it."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._clients)

    async def follow(self) -> None:
        """Keeps `best`, for ever."""
        while True:
            answers = await self._ask()
            self.best = max((each.height for each in answers.values()), default=0)
            self.answering = len(answers)
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Close the channels."""
        for client in self._clients.values():
            await client.close()

    async def introduce(self, root_public: bytes, has_chain: bool) -> dict[str, Any] | None:
        """Learn ids; the genesis document to begin with, None for one's own or a new one. Raises HomeMismatch.

        Waits without end for a chain to join, or for all others to say that there is none.
        """
        loop = asyncio.get_running_loop()
        began = told = loop.time()
        while True:
            answers = await self._ask()
            _remember(answers)
            for target, each in answers.items():
                if each.genesis and not has_chain:
                    return checked(target, each.genesis, root_public)
            everybody = len(answers) == len(self._clients)
            if has_chain and (everybody or loop.time() - began > PATIENCE_S):
                return None
            if self._plan.founder and everybody:
                return None
            if loop.time() - told > TELL_S:
                told = loop.time()
                missing = sorted(self._clients.keys() - answers.keys())
                _log.warning("no chain yet to join: waiting for %s", missing or self._plan.targets[0])
            await asyncio.sleep(AGAIN_S)

    async def _ask(self) -> dict[str, ledger_pb2.PeerResponse]:
        async def one(client: LedgerClient) -> ledger_pb2.PeerResponse | None:
            with contextlib.suppress(LedgerUnavailable):
                return await client.peer(ASK_S)
            return None

        answers = await asyncio.gather(*map(one, self._clients.values()))
        return {target: each for target, each in zip(self._clients, answers, strict=True) if each is not None}


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


def persistent_peers() -> str:
    """CometBFT's list, of all that config/peers.json knows."""
    known: dict[str, str] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    return ",".join(known[target] for target in sorted(known))


def _remember(answers: dict[str, ledger_pb2.PeerResponse]) -> None:
    known: dict[str, str] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    learned = {
        target: f"{each.node_id}@{target.rpartition(':')[0]}:{each.p2p_port}"
        for target, each in answers.items()
        if _plausible(each)
    }
    if known | learned != known:
        write_durably(KNOWN, json.dumps(known | learned).encode(), 0o644)


def _plausible(answer: ledger_pb2.PeerResponse) -> bool:
    """It goes into a configuration file."""
    digits = set("0123456789abcdef")
    return len(answer.node_id) == 40 and set(answer.node_id) <= digits and 0 < answer.p2p_port < 65536
