"""What this ledger tells others: the operations that wait here for a block, and that no other ledger has told it.

    Pool -> what is new, PAUSE_S after the last time at the earliest -> one message, the same bytes for all who listen

Whoever begins to listen is told first of all that waits. Why not by CometBFT's mempool: docs/decisions/0013-gossip.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.watches import TooMany, TooSlow

PAUSE_S: Final = 0.02
"""Between two messages, so that those that come together go together. The first after a pause goes at once."""
MESSAGE_BYTES: Final = 2 << 20
"""Of a message, at most; more than any operation has."""
BEHIND_BYTES: Final = 32 << 20
"""Who has more than this still to take is cut off, and begins again when it can."""
LISTENERS: Final = 256
OF_ONE_HOST: Final = 4
"""Of them, at most: else a stranger with one connection would keep all ledgers out."""


class _Listener:
    def __init__(self, host: str) -> None:
        self.host = host
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._bytes = 0

    def tell(self, message: bytes) -> None:
        self._bytes += len(message)
        self._queue.put_nowait(message if self._bytes <= BEHIND_BYTES else None)

    async def next(self) -> bytes:
        """Raises TooSlow."""
        message = await self._queue.get()
        if message is None:
            raise TooSlow
        self._bytes -= len(message)
        return message


class Telling:
    """To all who listen to one ledger. All calls on one event loop."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._listeners: set[_Listener] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._pool.news()
            while some := self._pool.untold(MESSAGE_BYTES):
                message = _message(some)
                for listener in self._listeners:
                    listener.tell(message)
            await asyncio.sleep(PAUSE_S)

    async def listen(self, host: str) -> AsyncGenerator[bytes, None]:
        """Serialized PendingResponses. host: who listens, without the port. Raises TooSlow, TooMany."""
        if len(self) >= LISTENERS or sum(each.host == host for each in self._listeners) >= OF_ONE_HOST:
            raise TooMany
        listener = _Listener(host)
        self._listeners.add(listener)
        try:
            for some in self._pool.all(MESSAGE_BYTES):
                yield _message(some)
            while True:
                yield await listener.next()
        finally:
            self._listeners.discard(listener)


def _message(envelopes: list[bytes]) -> bytes:
    return ledger_pb2.PendingResponse(envelopes=envelopes).SerializeToString()
