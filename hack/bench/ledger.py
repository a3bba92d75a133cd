"""Cost of a commit: the ledger beside CometBFT's own Go kvstore, on the same kind of validator, in the same run.

    PYTHONSAFEPATH=1 python hack/bench/ledger.py [--repetitions 3] [--single 100] [--crowd 2000] [--seconds 10]

One validator each (ML-DSA-65 key, the same consensus settings), clients on this machine.
Ledger: Allocates of about 2 KB, each with a signature of its own, through gRPC over TLS; signature and four tickets
checked, capacity reserved. kvstore: values of the same size through CometBFT's RPC on a unix socket, nothing checked,
nothing kept on disk by the application.

Single: submitted when the one before is committed. Crowd: as fast as four clients can, each by its cheapest road:
SubmitMany with 200 in a call, and batches of 100 broadcast_tx_async; until all are committed, as both sides show.
At a rate: one every 5 ms, whatever became of those before. Flood: what another operator's single operations wait for
while one key keeps its share of the pool full, beside what they wait for without.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _rows import Row, compared, percentile, publish, resident, single  # noqa: E402
from tests.builders import TrustRoot, allocation  # noqa: E402
from tests.integration.ledger_fixture import Ledger, Settled, running_ledger, settle  # noqa: E402

from hypermesh import operations  # noqa: E402
from hypermesh.proofs.parameters import DEMO  # noqa: E402
from hypermesh.refusals import Refused  # noqa: E402
from hypermesh.v1 import proofs_pb2, trust_pb2  # noqa: E402
from hypermesh_clients.ledger import Commit, LedgerClient  # noqa: E402
from hypermesh_ledger import home  # noqa: E402
from hypermesh_ledger.genesis import make_genesis  # noqa: E402
from hypermesh_ledger.options import find_cometbft  # noqa: E402

CLIENTS = 4
IN_A_CALL = 200
FLOODS = 6
"""Waves of 200 that wait at once: more than a key's share of the pool."""
RATE = 200
TX_BYTES = 2_000
BASELINE = "CometBFT's Go kvstore"


class Kvstore:
    """A validator whose application is compiled into CometBFT."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, *calls: tuple[str, dict[str, Any]]) -> Any:
        """JSON-RPC; several calls go as one batch."""
        body = [{"jsonrpc": "2.0", "id": i, "method": name, "params": args} for i, (name, args) in enumerate(calls)]
        async with self._session.post("http://rpc/", json=body if len(body) > 1 else body[0]) as reply:
            answers = json.loads(await reply.text())
        for answer in answers if isinstance(answers, list) else [answers]:
            if "error" in answer:
                raise RuntimeError(f"kvstore: {answer['error']}")
        return answers

    async def commit(self) -> float:
        """Seconds until one value is committed."""
        began = time.perf_counter()
        await self.call(("broadcast_tx_commit", {"tx": _value()}))
        return time.perf_counter() - began

    async def crowd(self, count: int) -> float:
        """Values committed a second."""
        values = [_value() for _ in range(count)]
        batches = [values[first : first + 100] for first in range(0, count, 100)]
        there = await self._size()
        began = time.perf_counter()

        async def work() -> None:
            while batches:
                await self.call(*(("broadcast_tx_async", {"tx": value}) for value in batches.pop()))

        await asyncio.gather(*(work() for _ in range(CLIENTS)))
        async with asyncio.timeout(300):
            while await self._size() < there + count:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.005)
        return count / (time.perf_counter() - began)

    async def _size(self) -> int:
        """Values that the application has committed."""
        data = (await self.call(("abci_info", {})))["result"]["response"]["data"]
        return int(json.loads(data)["size"])


def _value() -> str:
    key = secrets.token_hex(8)
    return base64.b64encode(f"{key}={'v' * (TX_BYTES - len(key) - 1)}".encode()).decode()


@contextlib.asynccontextmanager
async def kvstore(directory: Path) -> AsyncIterator[Kvstore]:
    """Started on the ledger's own configuration with another application and CometBFT's own mempool."""
    home.prepare(directory, "kvstore", make_genesis(TrustRoot().keypair.public, DEMO))
    config = directory / "config" / "config.toml"
    text = config.read_text().replace(f'proxy_app = "unix://{home.ABCI_SOCKET}"', 'proxy_app = "kvstore"')
    text = text.replace('type = "app"', 'type = "flood"').replace(
        "create_empty_blocks = true", "create_empty_blocks = false"
    )
    config.write_text(text)
    program = find_cometbft(None)
    if program is None:
        raise SystemExit("CometBFT is missing: run `make tools`")
    process = await asyncio.create_subprocess_exec(program, "start", "--home", str(directory), cwd=directory)
    try:
        connector = aiohttp.UnixConnector(str(directory / home.RPC_SOCKET))
        async with aiohttp.ClientSession(connector=connector) as session:
            node = Kvstore(session)
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        await node.commit()
                        break
                    await asyncio.sleep(0.1)
            yield node
    finally:
        process.terminate()
        await process.wait()


async def ledger_singles(settled: Settled, name: str, count: int) -> list[float]:
    """Seconds from submission to commit, one at a time."""
    taken = []
    for index in range(count):
        envelope = settled.allocate(f"{name}-{index}")
        began = time.perf_counter()
        await settled.ledger.client.submit(envelope, timeout=30)
        taken.append(time.perf_counter() - began)
    return taken


async def submit_all(clients: Sequence[LedgerClient], envelopes: Sequence[bytes]) -> int:
    """Through SubmitMany, a client's calls one after another; how many were committed, all others gave way."""
    calls = [envelopes[first : first + IN_A_CALL] for first in range(0, len(envelopes), IN_A_CALL)]
    committed = 0

    async def work(client: LedgerClient) -> None:
        nonlocal committed
        while calls:
            async for _, outcome in client.submit_many(calls.pop(), 120):
                if isinstance(outcome, Refused):
                    raise outcome
                committed += isinstance(outcome, Commit)

    await asyncio.gather(*map(work, clients))
    return committed


@contextlib.asynccontextmanager
async def connected(ledger: Ledger) -> AsyncIterator[list[LedgerClient]]:
    """Clients that have made their connections."""
    clients = [LedgerClient(ledger.target, ledger.ca_pem) for _ in range(CLIENTS)]
    try:
        await asyncio.gather(*(client.status(timeout=30) for client in clients))
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients))


async def ledger_crowd(settled: Settled, name: str, count: int) -> float:
    """Allocates committed a second; signed before the clock starts."""
    envelopes = [settled.allocate(f"{name}-{index}") for index in range(count)]
    async with connected(settled.ledger) as clients:
        began = time.perf_counter()
        if await submit_all(clients, envelopes) < count:
            raise SystemExit("the pool was full: fewer at once, please")
        return count / (time.perf_counter() - began)


async def ledger_at_rate(settled: Settled, name: str, rate: int, seconds: int) -> list[float]:
    """Seconds from submission to commit at so many a second; signed before the first."""
    envelopes = [settled.allocate(f"{name}-{index}") for index in range(rate * seconds)]
    taken: list[float] = []

    async def one(envelope: bytes, due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        await settled.ledger.client.submit(envelope, timeout=60)
        taken.append(time.perf_counter() - due)

    began = time.perf_counter()
    await asyncio.gather(*(one(envelope, began + index / rate) for index, envelope in enumerate(envelopes)))
    return taken


async def flooded(settled: Settled, modest: Settled, name: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds that another operator's single operations take: alone, and while one key's share of the pool is full."""
    alone = await ledger_singles(modest, f"{name}-alone", count)
    keypair, refs, ledger = settled.operator.keypair, settled.refs(), settled.ledger
    stop, waves = asyncio.Event(), iter(range(1_000_000))

    async def wave(client: LedgerClient) -> None:
        while not stop.is_set():
            number = next(waves)
            asked = [
                (ledger.operation(allocate=allocation(settled.node, settled.cpu, f"{name}-{number}-{each}", 1)), refs)
                for each in range(IN_A_CALL)
            ]
            built = await asyncio.to_thread(operations.build_batch, asked, keypair.public, keypair.secret)
            await submit_all([client], built)

    async with connected(ledger) as clients:
        flood = [asyncio.create_task(wave(clients[each % CLIENTS])) for each in range(FLOODS)]
        try:
            async with asyncio.timeout(120):
                while not (await ledger.client.status(timeout=30)).mempool:  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.01)
            beside = await ledger_singles(modest, f"{name}-beside", count)
        finally:
            stop.set()
            await asyncio.gather(*flood)
    return alone, beside


async def measure(options: argparse.Namespace, directory: Path) -> list[Row]:
    """Ledger and baseline in turns; medians over the repetitions."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.epoch_ms = 3_600_000
    ours: dict[str, list[float]] = {"p50": [], "p95": [], "p99": [], "rate": []}
    theirs: dict[str, list[float]] = {"p50": [], "p95": [], "p99": [], "rate": []}
    steady: dict[str, list[float]] = {"p50": [], "p95": [], "p99": []}
    alone: dict[str, list[float]] = {"p50": [], "p95": []}
    beside: dict[str, list[float]] = {"p50": [], "p95": []}
    async with running_ledger(directory / "ledger", params) as ledger, kvstore(directory / "kvstore") as baseline:
        settled = await settle(ledger, 1 << 40)
        modest = replace(settled, operator=await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator-2"))
        await ledger_singles(settled, "warm", 20)
        for repetition in range(options.repetitions):
            _latencies(ours, await ledger_singles(settled, f"single-{repetition}", options.single))
            _latencies(theirs, [await baseline.commit() for _ in range(options.single)])
            ours["rate"].append(await ledger_crowd(settled, f"crowd-{repetition}", options.crowd))
            theirs["rate"].append(await baseline.crowd(options.crowd))
            _latencies(steady, await ledger_at_rate(settled, f"rate-{repetition}", RATE, options.seconds))
            quiet, loud = await flooded(settled, modest, f"flood-{repetition}", options.single)
            _latencies(alone, quiet)
            _latencies(beside, loud)
        memory = {name: resident(pid) / 1024 for name, pid in ledger.pids().items()}
    return [
        *(
            compared(f"ledger commit of one Allocate, {name}", "ms", ours[name], BASELINE, theirs[name])
            for name in ("p50", "p95", "p99")
        ),
        compared("ledger Allocates committed", "1/s", ours["rate"], BASELINE, theirs["rate"]),
        *(single(f"ledger commit at {RATE}/s, {name}", "ms", *steady[name]) for name in steady),
        *(
            compared(f"ledger commit beside a flood, {name}", "ms", beside[name], "without", alone[name])
            for name in beside
        ),
        *(single(f"ledger resident memory, {name}", "MiB", size) for name, size in sorted(memory.items())),
    ]


def _latencies(kept: dict[str, list[float]], taken: list[float]) -> None:
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        if name in kept:
            kept[name].append(percentile(taken, share) * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--single", type=int, default=100, help="operations one after another, a repetition")
    parser.add_argument("--crowd", type=int, default=2000, help="operations at once, a repetition")
    parser.add_argument("--seconds", type=int, default=10, help="of a steady rate, a repetition")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as directory:
        publish("ledger", asyncio.run(measure(options, Path(directory))))


if __name__ == "__main__":
    main()
