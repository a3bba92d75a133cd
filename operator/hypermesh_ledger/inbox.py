"""Transactions from peers on their way into the pool: checked in the background, never more than fit in memory.

A peer's CometBFT waits for our answer to each, so there is one at once; what becomes of it shows in the pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from hypermesh import operations
from hypermesh.refusals import Refused

_log = logging.getLogger(__name__)

MAX_TXS: Final = 1_024
MAX_BYTES: Final = 32 << 20
"""Checked at the same time, at most; the peer's next one is not taken, and may be sent again."""


class Inbox:
    """Admissions under way. All calls on one event loop."""

    def __init__(self, admit: Callable[[bytes, bytes], Awaitable[object]]) -> None:
        """admit: (transaction, its hash); raises Refused."""
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def offer(self, tx: bytes) -> bool:
        """Whether the transaction is taken; returns before it is checked."""
        if len(self._tasks) >= MAX_TXS or self._bytes + len(tx) > MAX_BYTES:
            return False
        self._bytes += len(tx)
        task = asyncio.create_task(self._check(tx))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _check(self, tx: bytes) -> None:
        try:
            await self._admit(tx, operations.tx_hash(tx))
        except Refused as refusal:
            _log.info("peer's transaction refused: %s", refusal)
        finally:
            self._bytes -= len(tx)
