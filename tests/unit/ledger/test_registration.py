"""A node's word on its own hardware, and what it may not say."""

from __future__ import annotations

from typing import Any

import pytest

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys

from ...builders import allocation, registration
from .world import CPU, MEMORY, Settled


def altered(asset: ledger_pb2.RegisterAsset, **fields: Any) -> ledger_pb2.RegisterAsset:
    copy = ledger_pb2.RegisterAsset()
    copy.CopyFrom(asset)
    for name, value in fields.items():
        if name == "sharing":
            copy.sharing.CopyFrom(value)
        else:
            setattr(copy, name, value)
    return copy


def register(settled: Settled, asset: ledger_pb2.RegisterAsset) -> Reason | None:
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    return settled.reason(settled.tx(settled.node, refs, register_asset=asset))


def update(settled: Settled, revision: int, capacity: int = 100, **sharing: Any) -> Reason | None:
    terms = {"privacy_level": ledger_pb2.PRIVACY_LEVEL_PUBLIC} | sharing
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    operation = ledger_pb2.UpdateAsset(
        asset_id=settled.cpu_id, revision=revision, capacity=capacity, sharing=ledger_pb2.Sharing(**terms)
    )
    return settled.reason(settled.tx(settled.node, refs, update_asset=operation))


def retire(settled: Settled, revision: int) -> Reason | None:
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    operation = ledger_pb2.RetireAsset(asset_id=settled.cpu_id, revision=revision)
    return settled.reason(settled.tx(settled.node, refs, retire_asset=operation))


def memory(settled: Settled) -> ledger_pb2.RegisterAsset:
    return registration(settled.node, MEMORY, "mem-0", 64, work_device=settled.cpu_id)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": 0}, Reason.Malformed),
        ({"type": 9}, Reason.Malformed),
        ({"hardware_id": ""}, Reason.Malformed),
        ({"hardware_id": "x" * 254}, Reason.Malformed),
        ({"name": ""}, Reason.Malformed),
        ({"capacity": 0}, Reason.Malformed),
        ({"work_device": b"x"}, Reason.Malformed),
        ({"sharing": ledger_pb2.Sharing(privacy_level=0, price_per_hour="1")}, Reason.NotCanonical),
        ({"sharing": ledger_pb2.Sharing(owner_namespaces=["b", "a"])}, Reason.Malformed),
        ({"sharing": ledger_pb2.Sharing(price_per_hour="-1")}, Reason.Malformed),
        ({"sharing": ledger_pb2.Sharing(price_per_hour="01")}, Reason.Malformed),
        ({"sharing": ledger_pb2.Sharing(price_per_hour="1" * 40)}, Reason.Malformed),
        ({"asset_id": b"x" * 32}, Reason.IdentifierWrong),
        ({"hardware_id": "mem-1"}, Reason.IdentifierWrong),
        ({"address": b"\xfd" + bytes(15)}, Reason.AddressWrong),
        ({"address_counter": 3}, Reason.AddressWrong),
        ({"work_device": b"x" * 32}, Reason.WorkTicketForeign),
        ({"revision": 1}, Reason.RevisionConflict),
    ],
)
def test_wrong_registrations(settled: Settled, fields: dict[str, Any], reason: Reason) -> None:
    if "sharing" in fields and reason is Reason.NotCanonical:
        reason = Reason.Malformed  # an unset level: merged over, so clear it
        asset = memory(settled)
        asset.sharing.privacy_level = 0
        assert register(settled, asset) is reason
        return
    assert register(settled, altered(memory(settled), **fields)) is reason
    assert register(settled, memory(settled)) is None


def test_registering_again(settled: Settled) -> None:
    assert register(settled, settled.cpu) is None
    assert settled.asset(settled.cpu_id).revision == 1
    assert register(settled, altered(settled.cpu, capacity=200)) is Reason.RevisionConflict


def test_a_computing_asset_proves_itself(settled: Settled) -> None:
    second = registration(settled.node, CPU, "cpu-1", 5, work_device=settled.cpu_id)
    assert register(settled, second) is Reason.WorkTicketForeign


def test_an_address_in_use_is_taken(settled: Settled) -> None:
    asset = memory(settled)
    settled.state.entries[keys.address(asset.address)] = b"x" * 32
    assert register(settled, asset) is Reason.AddressTaken


def test_updates_follow_revisions(settled: Settled) -> None:
    assert update(settled, 2) is Reason.RevisionConflict
    assert update(settled, 1, capacity=0) is Reason.Malformed
    assert update(settled, 1, owner_namespaces=["a", "a"]) is Reason.Malformed
    assert update(settled, 1, capacity=120, price_per_hour="7") is None
    record = settled.asset(settled.cpu_id)
    assert (record.revision, record.registration.capacity, record.registration.sharing.price_per_hour) == (2, 120, "7")
    assert update(settled, 1, capacity=120) is Reason.RevisionConflict  # a replay


def test_what_is_reserved_stays(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 60)
    assert settled.reason(settled.allocate(asked)) is None
    assert update(settled, 1, capacity=59) is Reason.AssetBusy
    assert retire(settled, 1) is Reason.AssetBusy
    assert update(settled, 1, capacity=60) is None
    assert settled.reason(settled.release(asked.allocation_id)) is None
    assert retire(settled, 2) is None


def test_retired_and_registered_again(settled: Settled) -> None:
    assert retire(settled, 1) is None
    assert retire(settled, 2) is Reason.AssetRetired
    assert update(settled, 2) is Reason.AssetRetired
    assert register(settled, settled.cpu) is Reason.RevisionConflict  # a replay of the first registration
    assert register(settled, altered(settled.cpu, revision=2)) is None
    assert settled.asset(settled.cpu_id).revision == 3


def test_only_the_owner_speaks_for_an_asset(settled: Settled) -> None:
    other = settled.enrol(trust_pb2.ROLE_NODE, "node-2")
    settled.win(other, settled.cpu_id)
    refs = settled.refs(other, other, settled.cpu_id)
    operation = ledger_pb2.RetireAsset(asset_id=settled.cpu_id, revision=1)
    assert settled.reason(settled.tx(other, refs, retire_asset=operation)) is Reason.RoleForbidden
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    assert settled.reason(settled.tx(settled.operator, refs, retire_asset=operation)) is Reason.RoleForbidden
    assert settled.reason(settled.tx(settled.operator, refs, register_asset=memory(settled))) is Reason.RoleForbidden
    missing = ledger_pb2.RetireAsset(asset_id=b"x" * 32, revision=1)
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    assert settled.reason(settled.tx(settled.node, refs, retire_asset=missing)) is Reason.NoSuchAsset
