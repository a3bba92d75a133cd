"""A queue of keys: each key is worked on by one worker at a time, and once for any number of reasons to.

What controllers are made of since client-go's workqueue: a key added while it waits is there already; a key added
while it is worked on comes again afterwards; a key can be added for later, and an earlier time wins. Urgent keys come
first: under a load, what is half done is finished before more is begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType


class WorkQueue:
    """Bound to one event loop. `async with queue.next() as key: …` is one turn of a worker."""

    def __init__(self) -> None:
        self._urgent: deque[str] = deque()
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: dict[str, bool] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Keys ready and not yet taken."""
        return len(self._urgent) + len(self._ready)

    def load(self) -> int:
        """Keys ready or being worked on."""
        return len(self) + len(self._working)

    def add(self, key: str, urgent: bool = False) -> None:
        """As soon as possible."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        if key in self._working:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._queued:
            self._queued.add(key)
            (self._urgent if urgent else self._ready).append(key)
            self._filled.set()

    def add_after(self, key: str, seconds: float) -> None:
        """After `seconds`, unless it is due earlier anyway."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._later.get(key)
        if key in self._queued or key in self._again or (timer is not None and timer.when() <= due):
            return
        if timer is not None:
            timer.cancel()
        self._later[key] = loop.call_at(due, self._due, key)

    def forget(self, key: str) -> None:
        """Nothing more is planned for it."""
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        self._again.pop(key, None)

    def next(self) -> Turn:
        """One turn: waits for a key, and hands it back at the end."""
        return Turn(self)

    def _due(self, key: str) -> None:
        self._later.pop(key, None)
        self.add(key)

    async def take(self) -> str:
        """The next key; `done` must follow."""
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        key = (self._urgent or self._ready).popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Ends the work on a key that `take` gave."""
        self._working.discard(key)
        if key in self._again:
            self.add(key, self._again.pop(key))


class Turn:
    """Async context manager around one key."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._key = ""

    async def __aenter__(self) -> str:
        self._key = await self._queue.take()
        return self._key

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.done(self._key)
