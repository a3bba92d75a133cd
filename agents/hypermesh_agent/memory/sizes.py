"""How much of each memory is to be filled, and how much may be offered of it: pure.

    the owner's size -> a share for each memory -> less what is reserved -> slabs to fill
    what the newest ticket shows + what is reserved -> the capacity to register

The share is what the owner gives of a memory, filled or leased: what a tenant holds need not be filled, and what it
gives back is filled again. Registered is at most what filling the whole share would show (a ticket shows less than is
filled), and more than before only as far as it was shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hypermesh.proofs.memory import MAX_BLOCKS, shown_bytes
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.directory import NodeAsset
from hypermesh_agent.hardware import Kind
from hypermesh_agent.reserves import Reserve, spread


@dataclass(frozen=True, slots=True)
class Share:
    """What the owner gives of one memory, in slabs; `size` of one slab in bytes."""

    asset: NodeAsset
    slabs: int
    size: int

    def to_fill(self, record: ledger_pb2.AssetRecord | None) -> int:
        """Slabs to fill: those that nothing is reserved of."""
        reserved = record.reserved if record is not None else 0
        return max(0, self.slabs - -(-reserved // self.size))


def shares(assets: Iterable[NodeAsset], size: Reserve, params: proofs_pb2.MemoryParameters) -> dict[bytes, Share]:
    """By asset id, of every memory; `size` of all that the node's memories can give, in their proportion."""
    memories = [asset for asset in assets if asset.hardware.kind is Kind.MEMORY]
    capacities = [asset.hardware.capacity for asset in memories]
    parts = spread(size.of(sum(capacities)), capacities)
    most = MAX_BLOCKS * params.block_kib * 1024 // params.slab_bytes
    return {
        asset.asset_id: Share(asset, min(most, part // params.slab_bytes), params.slab_bytes)
        for asset, part in zip(memories, parts, strict=True)
    }


def fresh(memory: ledger_pb2.MemoryRecord | None, epoch: int, grace: int) -> bool:
    """Whether the ledger still believes the memory's newest ticket."""
    return memory is not None and memory.HasField("ticket") and memory.ticket.epoch + grace >= epoch


def offered(
    share: Share,
    params: proofs_pb2.MemoryParameters,
    record: ledger_pb2.AssetRecord | None,
    memory: ledger_pb2.MemoryRecord | None,
    epoch: int,
    grace: int,
) -> NodeAsset | None:
    """The memory with the capacity that can be registered now; None: it waits for its first ticket."""
    whole = min(share.asset.hardware.capacity, shown_bytes(share.slabs, params))
    registered = record is not None and not record.retired
    held = record.registration.capacity if record is not None and registered else 0
    shown = 0
    if memory is not None and fresh(memory, epoch, grace):
        reserved = record.reserved if record is not None and registered else 0
        shown = reserved + max(0, memory.ticket.shown - memory.grants.spent)
    capacity = min(whole, max(held, shown))
    if capacity == 0 and not registered:
        return None
    return replace(share.asset, hardware=replace(share.asset.hardware, capacity=capacity))
