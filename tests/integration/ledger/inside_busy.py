"""Ledgers join a lone one that is in use: they catch up with its blocks, and are level with it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import pytest

from ...builders import TrustRoot
from .four_ledgers import LIMIT_S, Place, four

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAUSE_S = 0.5
"""Between two operations: with less, CometBFT has its lock free so often that votes of older blocks are told anyway."""
AHEAD = 30


async def use(place: Place, root: TrustRoot, done: asyncio.Event) -> int:
    """How many operations were committed until then."""
    count = 0
    while not done.is_set():
        await place.commit(root, f"someone-{count}")
        count += 1
        await asyncio.sleep(PAUSE_S)
    return count


async def ready(place: Place) -> None:
    """Bounded."""
    end, said = time.monotonic() + LIMIT_S, ""
    while time.monotonic() < end:
        with contextlib.suppress(aiohttp.ClientError):
            said = await place.readiness()
        if "[+] chain" in said:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"ledger {place.number}: {said}\n{place.log[-3000:]}")


async def test_who_joins_a_busy_founder_is_level_with_it(tmp_path: Path) -> None:
    root, done = TrustRoot(), asyncio.Event()
    async with four(tmp_path, root) as (first, *others):
        await first.start(listed=1)
        using = asyncio.create_task(use(first, root, done))
        await first.until(lambda status: status.height > AHEAD, "blocks")
        started = time.monotonic()
        await asyncio.gather(*(place.start() for place in others))
        await asyncio.gather(*map(ready, others))
        done.set()
        print(f"{await using} operations; ready after {time.monotonic() - started:.0f} s")
        level = await first.until(lambda _: True, "answer")
        for place in others:
            await place.until(lambda status: status.height >= level.height, "catching up")
