"""How much is filled, and how much is offered of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hypermesh.proofs.memory import shown_bytes
from hypermesh.proofs.parameters import MEMORY_DEMO
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.directory import NodeAsset
from hypermesh_agent.hardware import Hardware, Kind
from hypermesh_agent.memory.sizes import Share, offered, shares
from hypermesh_agent.reserves import Reserve

MIB = 1 << 20
SLAB = 16 * MIB
CAPACITY = 1024 * MIB
EPOCH, GRACE = 10, 2


def asset(name: str, capacity: int = CAPACITY, kind: Kind = Kind.MEMORY) -> NodeAsset:
    return NodeAsset(name.encode().ljust(32), name, Hardware(kind, name, capacity, capacity), b"w" * 32)


def record(reserved: int = 0, capacity: int = 0, *, retired: bool = False) -> ledger_pb2.AssetRecord:
    registration = ledger_pb2.RegisterAsset(capacity=capacity)
    return ledger_pb2.AssetRecord(registration=registration, reserved=reserved, retired=retired)


def memory(slabs: int, spent: int = 0, epoch: int = EPOCH) -> ledger_pb2.MemoryRecord:
    ticket = ledger_pb2.MemoryTicket(epoch=epoch, shown=shown_bytes(slabs, MEMORY_DEMO))
    return ledger_pb2.MemoryRecord(ticket=ticket, grants=ledger_pb2.MemoryGrants(spent=spent))


SHARE = Share(asset("ram"), 8, SLAB)
ALL = shown_bytes(8, MEMORY_DEMO)


def capacity(
    held: ledger_pb2.AssetRecord | None, proven: ledger_pb2.MemoryRecord | None, share: Share = SHARE
) -> int | None:
    found = offered(share, MEMORY_DEMO, held, proven, EPOCH, GRACE)
    return None if found is None else found.hardware.capacity


def test_each_memory_of_a_node_has_its_share_in_whole_slabs() -> None:
    found = shares([asset("a", 3 * CAPACITY), asset("b"), asset("cpu", 4, Kind.CPU)], Reserve(130 * MIB), MEMORY_DEMO)
    assert {share.asset.name: share.slabs for share in found.values()} == {"a": 6, "b": 2}
    half = shares([asset("a")], Reserve(percent=50), MEMORY_DEMO)
    assert [share.slabs for share in half.values()] == [CAPACITY // SLAB // 2]
    more = shares([asset("a")], Reserve(2 * CAPACITY), MEMORY_DEMO)
    assert [share.slabs for share in more.values()] == [CAPACITY // SLAB]
    assert shares([], Reserve(CAPACITY), MEMORY_DEMO) == {}


def test_no_more_than_can_be_proven_is_filled() -> None:
    huge = proofs_pb2.MemoryParameters()
    huge.CopyFrom(MEMORY_DEMO)
    huge.slab_bytes = 1 << 30
    (share,) = shares([asset("a", 5 << 40)], Reserve(5 << 40), huge).values()
    assert share.slabs == 4096


@pytest.mark.parametrize(("reserved", "slabs"), [(0, 8), (1, 7), (SLAB, 7), (SLAB + 1, 6), (9 * SLAB, 0)])
def test_what_is_reserved_is_not_filled(reserved: int, slabs: int) -> None:
    assert SHARE.to_fill(record(reserved)) == slabs


def test_nothing_is_offered_before_it_was_shown() -> None:
    assert capacity(None, None) is None
    assert capacity(record(retired=True), ledger_pb2.MemoryRecord()) is None
    assert capacity(None, memory(8, epoch=EPOCH - GRACE - 1)) is None


def test_what_was_shown_is_offered() -> None:
    assert capacity(None, memory(8, epoch=EPOCH - GRACE)) == ALL
    assert capacity(None, memory(5)) == shown_bytes(5, MEMORY_DEMO)


def test_a_registered_memory_keeps_its_capacity_through_leases_and_lost_tickets() -> None:
    for reserved, proven in ((0, None), (SLAB, memory(7)), (0, memory(7)), (0, memory(8, spent=ALL))):
        assert capacity(record(reserved, ALL), proven) == ALL


def test_it_grows_only_as_far_as_it_was_shown() -> None:
    assert capacity(record(0, SLAB), memory(5)) == shown_bytes(5, MEMORY_DEMO)
    assert capacity(record(SLAB, SLAB), memory(5, spent=2 * SLAB)) == shown_bytes(5, MEMORY_DEMO) - SLAB
    assert capacity(record(0, SLAB), None) == SLAB


def test_an_owner_who_gives_less_offers_less() -> None:
    smaller = replace(SHARE, slabs=4)
    assert capacity(record(0, ALL), memory(4), smaller) == shown_bytes(4, MEMORY_DEMO)
    assert capacity(record(0, ALL), memory(4), replace(SHARE, slabs=0)) == 0
    assert capacity(None, memory(8), replace(SHARE, asset=asset("ram", SLAB))) == SLAB
