"""Cost of a commit: the ledger beside CometBFT's own Go kvstore, on the same kind of validator, in the same run.

    PYTHONSAFEPATH=1 python hack/bench/ledger.py [--repetitions 3] [--single 100] [--crowd 2000]

One validator each (ML-DSA-65 key, the same consensus settings), clients on this machine.
Ledger: signed Allocates of about 2 KB through gRPC over TLS, signature and four tickets checked, capacity reserved.
kvstore: values of the same size through CometBFT's RPC, nothing checked, nothing kept on disk by the application.
A single operation is submitted when the one before is committed; the crowd is submitted by 64 waiting clients.
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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _rows import Row, compared, percentile, publish, resident, single  # noqa: E402
from tests.builders import TrustRoot  # noqa: E402
from tests.integration.ledger_fixture import Settled, running_ledger, settle  # noqa: E402

from hypermesh.proofs.parameters import DEMO  # noqa: E402
from hypermesh.v1 import proofs_pb2  # noqa: E402
from hypermesh_clients.ledger import LedgerClient  # noqa: E402
from hypermesh_ledger import home  # noqa: E402
from hypermesh_ledger.genesis import make_genesis  # noqa: E402
from hypermesh_ledger.options import find_cometbft  # noqa: E402

WAITING = 64
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
        began = time.perf_counter()
        for first in range(0, count, 100):
            await self.call(*(("broadcast_tx_sync", {"tx": value}) for value in values[first : first + 100]))
        async with asyncio.timeout(300):
            while (await self.call(("num_unconfirmed_txs", {})))["result"]["n_txs"] != "0":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return count / (time.perf_counter() - began)


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


async def ledger_crowd(settled: Settled, name: str, count: int) -> float:
    """Allocates committed a second; signed before the clock starts."""
    envelopes = [settled.allocate(f"{name}-{index}") for index in range(count)]
    clients = [LedgerClient(settled.ledger.target, settled.ledger.ca_pem) for _ in range(2)]
    queue = list(enumerate(envelopes))

    async def work() -> None:
        while queue:
            index, envelope = queue.pop()
            await clients[index % len(clients)].submit(envelope, timeout=120)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(WAITING)))
    rate = count / (time.perf_counter() - began)
    await asyncio.gather(*(client.close() for client in clients))
    return rate


async def measure(options: argparse.Namespace, directory: Path) -> list[Row]:
    """Ledger and baseline in turns; medians over the repetitions."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.epoch_ms = 3_600_000
    ours: dict[str, list[float]] = {"p50": [], "p99": [], "rate": []}
    theirs: dict[str, list[float]] = {"p50": [], "p99": [], "rate": []}
    async with running_ledger(directory / "ledger", params) as ledger, kvstore(directory / "kvstore") as baseline:
        settled = await settle(ledger, 1 << 40)
        await ledger_singles(settled, "warm", 20)
        for repetition in range(options.repetitions):
            _latencies(ours, await ledger_singles(settled, f"single-{repetition}", options.single))
            _latencies(theirs, [await baseline.commit() for _ in range(options.single)])
            ours["rate"].append(await ledger_crowd(settled, f"crowd-{repetition}", options.crowd))
            theirs["rate"].append(await baseline.crowd(options.crowd))
        memory = {name: resident(pid) / 1024 for name, pid in ledger.pids().items()}
    return [
        *(
            compared(f"ledger commit of one Allocate, {name}", "ms", ours[name], BASELINE, theirs[name])
            for name in ("p50", "p99")
        ),
        compared("ledger Allocates committed", "1/s", ours["rate"], BASELINE, theirs["rate"]),
        *(single(f"ledger resident memory, {name}", "MiB", size) for name, size in sorted(memory.items())),
    ]


def _latencies(kept: dict[str, list[float]], taken: list[float]) -> None:
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        kept[name].append(percentile(taken, share) * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--single", type=int, default=100, help="operations one after another, a repetition")
    parser.add_argument("--crowd", type=int, default=2000, help="operations at once, a repetition")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as directory:
        publish("ledger", asyncio.run(measure(options, Path(directory))))


if __name__ == "__main__":
    main()
