"""Looks into the ledger never take more than one thread, whatever those who ask do."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from hypermesh_ledger.inspection import Inspection

CALLERS = 8
LIMIT_S = 60.0


class Searches:
    """A store whose searches last until they may end."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()
        self.begun = 0

    def find_outcome(self, _: bytes) -> None:
        self.begun += 1
        self.began.set()
        assert self.may_end.wait(LIMIT_S)


async def test_who_hangs_up_does_not_get_the_next_one_a_thread_before_its_own_is_free() -> None:
    store = Searches()
    core: Any = SimpleNamespace(store=store)
    inspection = Inspection(core)
    callers = [asyncio.create_task(inspection.transaction(bytes(32), None)) for _ in range(CALLERS)]
    async with asyncio.timeout(LIMIT_S):
        await asyncio.to_thread(store.began.wait)
        for caller in callers:
            caller.cancel()
            await asyncio.sleep(0.02)
        again = asyncio.create_task(inspection.transaction(bytes(32), None))
        await asyncio.sleep(0.1)
        assert store.begun == 1
        again.cancel()
        store.may_end.set()
        ended = await asyncio.gather(*callers, again, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)
