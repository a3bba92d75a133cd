"""Concurrent Allocates and Releases of one asset look as if done one after another, whatever befalls the ledger.

LINEARIZABILITY_RUNS says how many runs (12 when not given), LINEARIZABILITY_SEED the first one's seed. The same with
four validators is in inside_linearizability.py. A history that is not linearizable stays, with a picture of why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypermesh_clients.ledger import LedgerClient

from ..ledger_fixture import Ledger, Settled
from .recording import CAPACITY, COMMITTED, OVER, UNKNOWN, Operation, Recorder, judge, read_state, recorder

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNS = int(os.environ.get("LINEARIZABILITY_RUNS") or 12)
SEED = int(os.environ.get("LINEARIZABILITY_SEED") or random.randrange(1 << 32))
OPERATIONS = 200
WORKERS = 10
RUN_S = 180.0
PAUSE_S = 0.3


@contextlib.asynccontextmanager
async def trouble(ledger: Ledger, kind: str) -> AsyncIterator[None]:
    """While clients are at work: a process stands still again and again, or is killed."""

    async def cause() -> None:
        name = "cometbft" if kind == "cometbft stands" else "application"
        await asyncio.sleep(PAUSE_S)
        while kind in ("cometbft stands", "application stands"):
            pid = ledger.pids()[name]
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(PAUSE_S)
            finally:
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(PAUSE_S)
        if kind == "application dies":
            os.kill(ledger.pids()[name], signal.SIGKILL)

    causing = asyncio.create_task(cause())
    try:
        yield
    finally:
        causing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await causing
    await ledger.until_up()


TROUBLES = ("none", "application stands", "cometbft stands", "application dies")


@pytest.mark.parametrize("number", range(RUNS))
async def test_one_validator(settled: Settled, tmp_path: Path, number: int) -> None:
    ledger, kind = settled.ledger, TROUBLES[number % len(TROUBLES)]
    clients = [LedgerClient(ledger.target, ledger.ca_pem) for _ in range(3)]
    try:
        run = await recorder(settled, clients, SEED + number)
        async with asyncio.timeout(RUN_S), trouble(ledger, kind):
            await asyncio.gather(*(run.worker(each, OPERATIONS) for each in range(WORKERS)))
        await read_state(run)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    status, said = judge(run.write(tmp_path / "history.json"))
    print(f"{run.summary()}; {kind}")
    assert status == 0, said


def history(*operations: Operation) -> Recorder:
    """One that nobody recorded."""
    return Recorder(None, None, (), 0, list(operations))  # type: ignore[arg-type]


def at(call: int, returned: int, kind: str, each: int, amount: int, result: str) -> Operation:
    return Operation(0, call, kind, each, amount, result, returned)


FIRST = at(0, 10, "allocate", 0, CAPACITY, COMMITTED)
RELEASED = at(11, 12, "release", 0, 0, COMMITTED)
WRONG = {
    "doubled grant": [FIRST, at(1, 9, "allocate", 1, 1, COMMITTED)],
    "stale refusal": [
        FIRST,
        at(11, 12, "release", 0, 0, COMMITTED),
        at(13, 14, "allocate", 1, 1, "InsufficientCapacity"),
    ],
    "nothing to release": [FIRST, at(11, 12, "release", 0, 0, "NoSuchAllocation")],
    "over before it began": [at(0, 1, "release", 0, 0, OVER), at(2, 3, "allocate", 0, 1, COMMITTED)],
    "released twice": [FIRST, RELEASED, RELEASED],
    "lost grant": [FIRST, at(11, 12, "read", 0, 0, COMMITTED)],
    "grant before it was asked for": [at(0, 1, "read", 0, 1, COMMITTED), at(2, 3, "allocate", 0, 1, UNKNOWN)],
}
RIGHT = {
    "over by one or the other": [FIRST, at(11, 12, "release", 0, 0, OVER), at(11, 12, "release", 0, 0, COMMITTED)],
    "may have happened": [at(0, 1, "allocate", 0, 1, UNKNOWN), at(2, 3, "read", 0, 1, COMMITTED)],
    "may not have happened": [at(0, 1, "allocate", 0, 1, UNKNOWN), at(2, 3, "read", 0, 0, COMMITTED)],
    "at the same time": [FIRST, at(1, 9, "allocate", 1, 1, "InsufficientCapacity")],
    "either order": [FIRST, at(1, 9, "release", 0, 0, "NoSuchAllocation")],
}


@pytest.mark.parametrize("name", WRONG)
async def test_the_checker_rejects(tmp_path: Path, name: str) -> None:
    status, said = judge(history(*WRONG[name]).write(tmp_path / "history.json"))
    assert (status, "NOT linearizable" in said) == (1, True), said
    assert (tmp_path / "history.json.html").stat().st_size


@pytest.mark.parametrize("name", RIGHT)
async def test_the_checker_accepts(tmp_path: Path, name: str) -> None:
    status, said = judge(history(*RIGHT[name]).write(tmp_path / "history.json"))
    assert status == 0, said


async def test_a_recorded_history_with_one_doubled_grant_is_rejected(settled: Settled, tmp_path: Path) -> None:
    clients = [settled.ledger.client]
    run = await recorder(settled, clients, SEED + RUNS)
    async with asyncio.timeout(RUN_S):
        await asyncio.gather(*(run.worker(each, 60) for each in range(WORKERS)))
    await read_state(run)
    status, said = judge(run.write(tmp_path / "true.json"))
    assert status == 0, said
    last = run.operations.pop()
    after = last.returned + 1
    run.operations.append(at(after, after + 1, "allocate", run.ids, CAPACITY - last.amount + 1, COMMITTED))
    status, said = judge(run.write(tmp_path / "doubled.json"))
    assert status == 1, said
