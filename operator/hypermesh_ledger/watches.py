"""Watch: who follows the ledger, and what each block changes for them.

    block's writes -> changes (records by their keys) -> one batch a follower, filtered by node -> its queue -> gRPC

The first copy is read a batch at a time from the newest state, so no follower, however slow, holds an old one. What
blocks change meanwhile is queued and sent after it: at `synced` every record is as the last block sent left it.

A follower that reads too slowly is cut off; its mirror connects again and starts from a whole copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import closing
from typing import Final

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.store import Store

FOLLOWERS: Final = 512
"""Open Watches at most; the next one is told to come again."""
QUEUE: Final = 1_024
"""Batches that a follower may lag behind."""
QUEUE_BYTES: Final = 16 << 20
"""Their size, at which a follower is cut off too (but never for a single batch)."""
BATCH: Final = 256
"""Records in one message of the first copy."""
MARKER_S: Final = 1.0


class TooSlow(Exception):
    """The follower lags more than QUEUE blocks or QUEUE_BYTES behind."""


class TooMany(Exception):
    """There are FOLLOWERS open Watches already."""


class Follower:
    """One open Watch."""

    def __init__(self, node: bytes) -> None:
        self.node = node
        self._queue: asyncio.Queue[tuple[int, ledger_pb2.Changes]] = asyncio.Queue()
        self._bytes = 0
        self.cut = False

    def tell(self, changes: ledger_pb2.Changes, size: int) -> None:
        """Queue the part of one block's changes, which are so many bytes, that concerns this follower."""
        if self.cut:
            return
        if self.node:
            changes = _concerning(changes, self.node)
            size = changes.ByteSize()
        waiting = self._queue.qsize()
        if waiting >= QUEUE or (waiting and self._bytes + size > QUEUE_BYTES):
            self.cut = True
            self._queue = asyncio.Queue()  # nobody will read it
            return
        self._bytes += size
        self._queue.put_nowait((size, changes))

    def behind(self) -> bool:
        """Whether `next` has something to say at once."""
        return self.cut or not self._queue.empty()

    async def next(self) -> ledger_pb2.Changes:
        """The oldest batch that waits. Raises TooSlow."""
        if self.cut:
            raise TooSlow
        size, changes = await self._queue.get()
        self._bytes -= size
        return changes


class Watches:
    """All open Watches of one process. All calls on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._followers)

    def publish(self, writes: Iterable[tuple[bytes, bytes | None]], head: ledger_pb2.Block) -> None:
        """Tell everybody what a committed block changed."""
        if not self._followers:
            return
        batch = ledger_pb2.Changes()
        for key, value in writes:
            add_change(batch, key, value)
        batch.changes.add(block=head)
        size = batch.ByteSize()
        for follower in self._followers:
            follower.tell(batch, size)

    async def follow(self, node: bytes, status: ledger_pb2.StatusResponse) -> AsyncGenerator[ledger_pb2.Changes, None]:
        """The whole state (status first), then `synced`, then every block's batch. Raises TooSlow, TooMany.

        status must be of the newest block.
        """
        if len(self._followers) >= FOLLOWERS:
            raise TooMany
        follower = Follower(node)
        self._followers.add(follower)
        try:
            yield ledger_pb2.Changes(changes=[ledger_pb2.Change(status=status)])
            async for batch in self._copy(node):
                if follower.cut:
                    raise TooSlow
                yield batch
            while follower.behind():
                yield await follower.next()
            yield ledger_pb2.Changes(changes=[ledger_pb2.Change(synced=True)])
            while True:
                try:
                    async with asyncio.timeout(MARKER_S):
                        changes = await follower.next()
                except TimeoutError:
                    if follower.behind():  # it came the moment the time was up: a marker must not overtake it
                        continue
                    changes = ledger_pb2.Changes(changes=[ledger_pb2.Change(block=self._store.head)])
                yield changes
        finally:
            self._followers.discard(follower)

    async def _copy(self, node: bytes) -> AsyncGenerator[ledger_pb2.Changes, None]:
        """The newest state's records in batches, other work and new blocks coming between them."""
        watched = (keys.NODE, keys.ASSET, keys.TICKET, keys.SEED, keys.MEMORY, keys.ALLOCATION, keys.DELEGATIONS)
        for prefix in watched:
            last: bytes | None = prefix
            while last is not None:
                last, batch = self._some(prefix, last)
                if node:
                    batch = _concerning(batch, node)
                if batch.changes:
                    yield batch
                await asyncio.sleep(0)

    def _some(self, prefix: bytes, after: bytes) -> tuple[bytes | None, ledger_pb2.Changes]:
        """Up to BATCH records behind a key, and the last one's key; None at the end."""
        batch = ledger_pb2.Changes()
        last = None
        with closing(self._store.snapshot.scan(prefix, after)) as entries:
            for count, (key, value) in enumerate(entries, 1):
                add_change(batch, key, value)
                if count == BATCH:
                    last = key
                    break
        return last, batch


_RECORDS: Final = {
    keys.NODE: "node",
    keys.ASSET: "asset",
    keys.ALLOCATION: "allocation",
    keys.TICKET: "ticket",
    keys.SEED: "work_seed",
    keys.DELEGATIONS: "delegations",
    keys.MEMORY: "memory",
}
"""The field of a Change that a record goes into, by the prefix of its key."""


def add_change(batch: ledger_pb2.Changes, key: bytes, value: bytes | None) -> None:
    """The Change that a write means to followers; nothing for indexes and for what only the ledger needs."""
    kind = key[: key.find(b"/") + 1]
    if value is None:
        if kind == keys.ALLOCATION:
            batch.changes.add(allocation_gone=key[len(keys.ALLOCATION) :])
        elif kind == keys.TICKET:
            batch.changes.add(ticket_gone=keys.named_ticket(key))
    elif key == keys.EPOCH:
        batch.changes.add().epoch.MergeFromString(value)
    elif kind in _RECORDS:
        getattr(batch.changes.add(), _RECORDS[kind]).MergeFromString(value)


def _concerning(batch: ledger_pb2.Changes, node: bytes) -> ledger_pb2.Changes:
    return ledger_pb2.Changes(changes=[each for each in batch.changes if _concerns(each, node)])


def _concerns(change: ledger_pb2.Change, node: bytes) -> bool:
    match change.WhichOneof("record"):
        case "node":
            return True  # who verifies a signature or routes to a peer needs everybody's certificate
        case "asset":
            return change.asset.node == node
        case "allocation":
            return change.allocation.node == node
        case "ticket":
            return change.ticket.node == node
        case "ticket_gone":
            return change.ticket_gone.node == node
        case "work_seed":
            return change.work_seed.node == node
        case "delegations":
            given = change.delegations
            return given.owner == node or any(each.delegate == node for each in given.delegations)
        case "memory":
            return change.memory.node == node
    return True
