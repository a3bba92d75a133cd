"""Whose proof is verified next: one of each lane in turn, so that who has many waiting delays others by one at most.

A lane is a signer whose signature was found good. Both bounds refuse the newcomer, who is told to try again: unlike
in the pool nothing has been paid for its place yet.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

WAITING: Final = 256
"""Turns waited for, at most; a proof may have a megabyte."""
LANE: Final = 8
"""Of one lane: a node proves once an epoch, and what it sends again meanwhile is checked with the first."""


class Busy(Exception):
    """No more may wait."""


class Turns:
    """One turn at a time. All calls on one event loop."""

    def __init__(self) -> None:
        self._taken = False
        self._lanes: OrderedDict[bytes, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, lane: bytes) -> AsyncIterator[None]:
        """Waits for it, and gives it up at the end. Raises Busy."""
        if self._taken:
            await self._wait(lane)
        self._taken = True
        try:
            yield
        finally:
            self._next()

    async def _wait(self, lane: bytes) -> None:
        if self._waiting >= WAITING or len(self._lanes.get(lane, ())) >= LANE:
            raise Busy
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes.setdefault(lane, deque()).append(mine)
        self._waiting += 1
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():
                self._next()  # it came the moment this one went away
            raise

    def _next(self) -> None:
        """To the first of the lane that was served longest ago."""
        while self._lanes:
            lane, waiting = self._lanes.popitem(last=False)
            first = waiting.popleft()
            self._waiting -= 1
            if waiting:
                self._lanes[lane] = waiting
            if not first.done():
                first.set_result(None)
                return
        self._taken = False
