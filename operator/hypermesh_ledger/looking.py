"""Looks at states of before: proofs, values and snapshots, in threads beside the blocks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

import lmdb

from hypermesh_ledger.errors import HeightNotKept, TooManyLookBack
from hypermesh_ledger.history import Past
from hypermesh_ledger.merkle import Proof
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.store import Store

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LOOK_BACK_S: Final = 5.0
"""Longest wait until an old height is looked at, behind others that look back."""


class Looking:
    """Of one ledger; asked from its event loop."""

    def __init__(self, store: Store, snapshots: Snapshots) -> None:
        self._store = store
        self._snapshots = snapshots
        self._taking: asyncio.Future[None] | None = None
        self._looking_back = asyncio.Semaphore(1)

    async def prove(self, key: bytes, height: int) -> tuple[int, Proof]:
        """Height and proof of a key's value or absence; height 0 is the newest that a header covers.

        Raises HeightNotKept, TooManyLookBack.
        """
        if not height:
            height = self._store.head.height - 1
        return height, await self._look_back(height, lambda past: past.prove(key))

    async def value(self, key: bytes, height: int) -> bytes | None:
        """Raises HeightNotKept, TooManyLookBack."""
        return await self._look_back(height, lambda past: past.get(key))

    async def _look_back(self, height: int, look: Callable[[Past], Answer]) -> Answer:
        """In a thread that rests as long as it works, and only one at a time, also when whoever asked has gone.

        A block waits for it for milliseconds; whoever asks for old heights waits for the others, up to LOOK_BACK_S.
        """
        try:
            async with asyncio.timeout(LOOK_BACK_S):
                await self._looking_back.acquire()
        except TimeoutError:
            raise TooManyLookBack("Too many ask for older states; ask again later, or another ledger.") from None
        looking = asyncio.ensure_future(self._looked(height, look))
        looking.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(looking)

    async def _looked(self, height: int, look: Callable[[Past], Answer]) -> Answer:
        try:
            return await asyncio.to_thread(_look, self._store.past(height), look)
        finally:
            self._looking_back.release()

    def take_snapshot(self) -> None:
        """Of the newest height when it is due, unless the one before is still being written."""
        if self._snapshots.due(self._store.head.height) and (self._taking is None or self._taking.done()):
            self._taking = asyncio.ensure_future(self._taken(self._store.past(self._store.head.height)))

    async def _taken(self, past: Past) -> None:
        try:
            await asyncio.to_thread(self._snapshots.take, past)
        except (OSError, HeightNotKept, lmdb.Error) as error:
            _log.error("no snapshot of height %d: %s", past.height, error)


def _look(past: Past, look: Callable[[Past], Answer]) -> Answer:
    with past:
        return look(past)
