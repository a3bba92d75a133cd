"""The baseline of the ledger benchmark: CometBFT's own Go kvstore, compiled into CometBFT, as one validator or several.

Started on the ledger's own configuration, ML-DSA-65 keys included, with another application and CometBFT's own mempool
and gossip. Values of the size of an Allocate go through CometBFT's RPC on unix sockets, nothing is checked, and the
application keeps nothing on disk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.builders import TrustRoot

from hypermesh.proofs.parameters import DEMO
from hypermesh_ledger import home
from hypermesh_ledger.genesis import make_genesis
from hypermesh_ledger.node_key import node_id
from hypermesh_ledger.options import find_cometbft

CLIENTS: Final = 4
IN_A_CALL: Final = 100
TX_BYTES: Final = 2_000
BASELINE: Final = "CometBFT's Go kvstore"
START_S: Final = 120
COMMITTED_S: Final = 300
SUBSCRIPTIONS: Final = 10_000
"""broadcast_tx_commit takes one while it waits, and all clients of a unix socket count as one."""


@dataclass(frozen=True, slots=True)
class Node:
    """One validator. listen: [ipv6]:port for its peers, and prefix what its command begins with; empty when alone."""

    directory: Path
    listen: str = ""
    prefix: Sequence[str] = ()


class Kvstore:
    """Clients of a running kvstore, one session a validator."""

    def __init__(
        self, sessions: Sequence[aiohttp.ClientSession], processes: Sequence[asyncio.subprocess.Process]
    ) -> None:
        self._sessions = sessions
        self._processes = processes

    async def begun(self) -> None:
        """Until a value that every validator is given has been committed."""
        async with asyncio.timeout(START_S):
            for number in range(len(self._sessions)):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, RuntimeError):
                        await self.commit(number)
                        break
                    await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """They use no processor time meanwhile: idle validators look for each other's news all the time."""
        try:
            self._signal(signal.SIGSTOP)
            yield
        finally:
            self._signal(signal.SIGCONT)
        await self.begun()

    def _signal(self, number: int) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def call(self, session: aiohttp.ClientSession, *calls: tuple[str, dict[str, Any]]) -> Any:
        """JSON-RPC; several calls go as one batch."""
        body = [{"jsonrpc": "2.0", "id": i, "method": name, "params": args} for i, (name, args) in enumerate(calls)]
        async with session.post("http://rpc/", json=body if len(body) > 1 else body[0]) as reply:
            answers = json.loads(await reply.text())
        for answer in answers if isinstance(answers, list) else [answers]:
            if "error" in answer:
                raise RuntimeError(f"kvstore: {answer['error']}")
        return answers

    async def commit(self, number: int = 0) -> float:
        """Seconds until one value is committed."""
        began = time.perf_counter()
        await self.call(self._sessions[number % len(self._sessions)], ("broadcast_tx_commit", {"tx": _value()}))
        return time.perf_counter() - began

    async def singles(self, count: int) -> list[float]:
        """Seconds from submission to commit, one at a time."""
        return [await self.commit() for _ in range(count)]

    async def at_rate(self, rate: int, seconds: int) -> list[float]:
        """Seconds from submission to commit at so many a second, in turns at every validator."""

        async def one(number: int, due: float) -> float:
            await asyncio.sleep(due - time.perf_counter())
            await self.commit(number)
            return time.perf_counter() - due

        began = time.perf_counter()
        return await asyncio.gather(*(one(index, began + index / rate) for index in range(rate * seconds)))

    async def crowd(self, count: int) -> float:
        """Values committed a second: until every validator has them all."""
        values = [_value() for _ in range(count)]
        batches = [values[first : first + IN_A_CALL] for first in range(0, count, IN_A_CALL)]
        there = await self._size()
        began = time.perf_counter()

        async def work(session: aiohttp.ClientSession) -> None:
            while batches:
                await self.call(session, *(("broadcast_tx_async", {"tx": value}) for value in batches.pop()))

        await asyncio.gather(*map(work, itertools.islice(itertools.cycle(self._sessions), CLIENTS)))
        async with asyncio.timeout(COMMITTED_S):
            while await self._size() < there + count:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.005)
        return count / (time.perf_counter() - began)

    async def _size(self) -> int:
        """Values that the application of every validator has committed."""
        told = await asyncio.gather(*(self.call(session, ("abci_info", {})) for session in self._sessions))
        return min(int(json.loads(each["result"]["response"]["data"])["size"]) for each in told)


def _value() -> str:
    key = secrets.token_hex(8)
    return base64.b64encode(f"{key}={'v' * (TX_BYTES - len(key) - 1)}".encode()).decode()


def prepare(nodes: Sequence[Node]) -> None:
    """Directories of validators of one chain."""
    genesis = make_genesis(TrustRoot().keypair.public, DEMO)
    ids = {node.listen: node_id(node.directory / "config" / "node_key.json") for node in nodes if node.listen}
    documents = []
    for node in nodes:
        peers = ",".join(f"{ids[each.listen]}@{each.listen}" for each in nodes if each is not node)
        network = home.Network(node.listen, peers, None) if node.listen else None
        home.prepare(node.directory, "kvstore", genesis, network)
        config = node.directory / "config" / "config.toml"
        text = config.read_text().replace(f'proxy_app = "unix://{home.ABCI_SOCKET}"', 'proxy_app = "kvstore"')
        text = text.replace('type = "app"', 'type = "flood"').replace("broadcast = false", "broadcast = true")
        text = text.replace("create_empty_blocks = true", "create_empty_blocks = false")
        text = text.replace("[rpc]\n", f"[rpc]\nmax_subscriptions_per_client = {SUBSCRIPTIONS}\n")
        config.write_text(text)
        documents.append(json.loads((node.directory / "config" / "genesis.json").read_text()))
    validators = [validator for document in documents for validator in document["validators"]]
    for node in nodes:
        path = node.directory / "config" / "genesis.json"
        path.write_text(json.dumps(documents[0] | {"validators": validators}))


@contextlib.asynccontextmanager
async def kvstore(nodes: Sequence[Node]) -> AsyncIterator[Kvstore]:
    """Running, with a first value committed; ended at the end."""
    program = find_cometbft(None)
    if program is None:
        raise SystemExit("CometBFT is missing: run `make tools`")
    prepare(nodes)
    async with contextlib.AsyncExitStack() as stack:
        processes = []
        for node in nodes:
            command = [*node.prefix, program, "start", "--home", str(node.directory)]
            log = stack.enter_context((node.directory / "cometbft.log").open("wb"))
            process = await asyncio.create_subprocess_exec(*command, cwd=node.directory, stdout=log, stderr=log)
            stack.push_async_callback(_end, process)
            processes.append(process)
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(node.directory / home.RPC_SOCKET), limit=0),
                    timeout=aiohttp.ClientTimeout(COMMITTED_S),
                )
            )
            for node in nodes
        ]
        started = Kvstore(sessions, processes)
        await started.begun()
        yield started


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()
