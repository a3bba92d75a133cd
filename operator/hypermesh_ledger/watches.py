"""Watch: who follows the ledger, and what each block changes for them.

    block's writes -> changes (records by their keys) -> one batch a follower, filtered by node -> its queue -> gRPC

A follower that reads too slowly is cut off; its mirror connects again and starts from a whole copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Final

from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.state import Reader
from hypermesh_ledger.store import Snapshot, Store

QUEUE: Final = 1_024
"""Batches that a follower may lag behind."""
BATCH: Final = 256
"""Records in one message of the first copy."""
MARKER_S: Final = 1.0


class TooSlow(Exception):
    """The follower lags more than QUEUE blocks behind."""


class Follower:
    """One open Watch."""

    def __init__(self, node: bytes) -> None:
        self.node = node
        self.queue: asyncio.Queue[ledger_pb2.Changes] = asyncio.Queue(QUEUE)
        self.cut = False

    def tell(self, changes: Iterable[ledger_pb2.Change]) -> None:
        """Queue the part of one block's changes that concerns this follower."""
        mine = [change for change in changes if not self.node or _concerns(change, self.node)]
        try:
            self.queue.put_nowait(ledger_pb2.Changes(changes=mine))
        except asyncio.QueueFull:
            self.cut = True


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
        changes = [change for key, value in writes for change in change_of(key, value)]
        changes.append(ledger_pb2.Change(block=head))
        for follower in self._followers:
            follower.tell(changes)

    async def follow(self, node: bytes, status: ledger_pb2.StatusResponse) -> AsyncGenerator[ledger_pb2.Changes, None]:
        """The whole state (status first), then `synced`, then every block's batch. Raises TooSlow."""
        follower = Follower(node)
        snapshot = self._store.open_snapshot()
        self._followers.add(follower)
        try:
            async for batch in _copy(snapshot, node, status):
                yield batch
            while not follower.cut:
                try:
                    async with asyncio.timeout(MARKER_S):
                        changes = await follower.queue.get()
                except TimeoutError:
                    changes = ledger_pb2.Changes(changes=[ledger_pb2.Change(block=self._store.head)])
                yield changes
            raise TooSlow
        finally:
            self._followers.discard(follower)


async def _copy(
    snapshot: Snapshot, node: bytes, status: ledger_pb2.StatusResponse
) -> AsyncGenerator[ledger_pb2.Changes, None]:
    """The records of a snapshot in batches, other work running between them."""
    batch = [ledger_pb2.Change(status=status)]
    try:
        for change in _records(snapshot):
            if node and not _concerns(change, node):
                continue
            batch.append(change)
            if len(batch) == BATCH:
                yield ledger_pb2.Changes(changes=batch)
                batch = []
                await asyncio.sleep(0)
    finally:
        snapshot.close()
    yield ledger_pb2.Changes(changes=[*batch, ledger_pb2.Change(synced=True)])


def _records(state: Reader) -> Iterator[ledger_pb2.Change]:
    for prefix in (keys.NODE, keys.ASSET, keys.TICKET, keys.SEED, keys.ALLOCATION):
        for key, value in state.scan(prefix):
            yield from change_of(key, value)


def change_of(key: bytes, value: bytes | None) -> Iterator[ledger_pb2.Change]:
    """The Change that a write means to followers; nothing for indexes and for what only the ledger needs."""
    kind = key.partition(b"/")[0] + b"/"
    if value is None:
        if kind == keys.ALLOCATION:
            yield ledger_pb2.Change(allocation_gone=key[len(keys.ALLOCATION) :])
        return
    if key == keys.EPOCH:
        yield ledger_pb2.Change(epoch=ledger_pb2.Epoch.FromString(value))
    elif kind == keys.NODE:
        yield ledger_pb2.Change(node=ledger_pb2.NodeRecord.FromString(value))
    elif kind == keys.ASSET:
        yield ledger_pb2.Change(asset=ledger_pb2.AssetRecord.FromString(value))
    elif kind == keys.ALLOCATION:
        yield ledger_pb2.Change(allocation=ledger_pb2.AllocationRecord.FromString(value))
    elif kind == keys.TICKET:
        yield ledger_pb2.Change(ticket=proofs_pb2.Ticket.FromString(value))
    elif kind == keys.SEED:
        yield ledger_pb2.Change(work_seed=ledger_pb2.WorkSeed.FromString(value))


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
        case "work_seed":
            return change.work_seed.node == node
    return True
