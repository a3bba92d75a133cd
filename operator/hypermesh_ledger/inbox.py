"""Transactions from peers on their way into the pool: checked in the background, never more than fit in memory.

    offer -> waiting -> hear: some at once, decoded, verified and judged together -> pool
                              those that wait for a proof                         -> admit, each by itself -> pool

A peer's CometBFT waits for our answer to each, so there is one at once; what becomes of it shows in the pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hypermesh.operations import Decoded
from hypermesh.refusals import Refused

_log = logging.getLogger(__name__)

MAX_TXS: Final = 1_024
MAX_BYTES: Final = 32 << 20
"""Checked at the same time, at most; the peer's next one is not taken, and may be sent again."""
AT_ONCE: Final = 64
"""Heard together, at most."""

Hear = Callable[[Sequence[bytes]], Awaitable[Sequence[Decoded]]]
Admit = Callable[[bytes, bytes, Decoded], Awaitable[object]]


class Inbox:
    """Admissions under way. All calls on one event loop."""

    def __init__(self, hear: Hear, admit: Admit) -> None:
        """hear: several, returns those that have to wait. admit: (transaction, its hash, decoded); raises Refused."""
        self._hear = hear
        self._admit = admit
        self._waiting: deque[bytes] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._proofs: set[asyncio.Task[None]] = set()
        self._count = self._bytes = 0

    def __len__(self) -> int:
        """How many are not checked yet."""
        return self._count

    def offer(self, tx: bytes) -> bool:
        """Whether the transaction is taken; returns before it is checked."""
        if len(self) >= MAX_TXS or self._bytes + len(tx) > MAX_BYTES:
            return False
        self._counted(tx, 1)
        self._waiting.append(tx)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return True

    async def _work(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            later: Sequence[Decoded] = ()
            try:
                later = await self._hear(some)
            except Exception:  # noqa: BLE001 - a defect must not leave the others waiting
                _log.exception("%d transactions of peers could not be checked", len(some))
            for tx in some:
                self._counted(tx, -1)
            for decoded in later:
                self._counted(decoded.raw, 1)  # each by itself: another copy of the same bytes may be through by now
                task = asyncio.create_task(self._prove(decoded))
                self._proofs.add(task)
                task.add_done_callback(self._proofs.discard)

    async def _prove(self, decoded: Decoded) -> None:
        try:
            await self._admit(decoded.raw, decoded.tx_hash, decoded)
        except Refused as refusal:
            _log.info("peer's transaction refused: %s", refusal)
        finally:
            self._counted(decoded.raw, -1)

    def _counted(self, tx: bytes, change: int) -> None:
        self._count += change
        self._bytes += change * len(tx)
