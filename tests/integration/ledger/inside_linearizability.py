"""As test_linearizability.py, with clients at four validators, one of which is paused, cut off, far away or killed.

LINEARIZABILITY_RUNS says how many runs (10 when not given).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..ledger_fixture import Settled
from .faults import delay, drops
from .four_ledgers import LIMIT_S
from .grown import Grown
from .recording import judge, read_state, recorder

pytestmark = pytest.mark.asyncio(loop_scope="session")

RUNS = int(os.environ.get("LINEARIZABILITY_RUNS") or 10)
SEED = int(os.environ.get("LINEARIZABILITY_SEED") or random.randrange(1 << 32))
OPERATIONS = 200
WORKERS = 12
RUN_S = 180.0
TROUBLES = ("none", "paused", "cut off", "lossy", "killed")


@contextlib.asynccontextmanager
async def trouble(grown: Grown, kind: str) -> AsyncIterator[None]:
    """Of one validator, to which a quarter of the clients go first."""
    *others, victim = grown.places
    match kind:
        case "paused":
            victim.pause()
            resuming = asyncio.get_running_loop().call_later(1.5, victim.resume)
            try:
                yield
            finally:
                resuming.cancel()
                victim.resume()
        case "cut off":
            with drops(victim, others):
                yield
        case "lossy":
            async with delay(victim, 20):
                with drops(victim, others, percent=5):
                    yield
        case "killed":
            await victim.kill()
            await victim.start()
            yield
        case _:
            yield
    newest = await others[0].until(lambda _: True, "answer")
    await victim.until(lambda status: status.height >= newest.height, "the others' blocks")


@pytest.mark.parametrize("number", range(RUNS))
async def test_four_validators(grown: Grown, tenants: Settled, tmp_path: Path, number: int) -> None:
    kind = TROUBLES[number % len(TROUBLES)]
    run = await recorder(tenants, [place.client for place in grown.places], SEED + number)
    async with asyncio.timeout(RUN_S + LIMIT_S), trouble(grown, kind):
        await asyncio.gather(*(run.worker(each, OPERATIONS) for each in range(WORKERS)))
    await read_state(run)
    status, said = judge(run.write(tmp_path / "history.json"))
    print(f"{run.summary()}; one {kind}")
    assert status == 0, said


async def test_they_are_one_chain_after_all_of_it(grown: Grown) -> None:
    await grown.sound()
