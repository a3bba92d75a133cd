"""Capacity is never reserved twice, whatever is asked, in whatever order, and comes back exactly once."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import addressing, operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, context, judge, tickets
from hypermesh_ledger.execution.context import signer_of

from ...builders import TrustRoot, allocation, registration
from .world import CPU, Settled

OTHER_CLUSTER = "6a1f0c52-0000-4000-8000-000000000002"
PRIVATE, PUBLIC = ledger_pb2.PRIVACY_LEVEL_PRIVATE, ledger_pb2.PRIVACY_LEVEL_PUBLIC
VERIFIED = ledger_pb2.PRIVACY_LEVEL_VERIFIED


def test_allocate_reserves_and_release_gives_back(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 40, lease_seconds=60)
    tx = settled.allocate(asked)
    result = settled.do(tx)
    assert result.reason is None
    record = settled.allocation(asked.allocation_id)
    assert record is not None
    assert record.state == ledger_pb2.ALLOCATION_STATE_ACTIVE
    assert record.envelope == tx
    assert record.expires_ms == settled.now_ms + 60_000
    assert settled.asset(settled.cpu_id).reserved == 40
    assert settled.state.entries[keys.address(asked.address)] == asked.allocation_id
    assert settled.reason(settled.release(asked.allocation_id)) is None
    assert settled.asset(settled.cpu_id).reserved == 0
    assert keys.address(asked.address) not in settled.state.entries


def test_asking_the_same_again_changes_nothing(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 40)
    first = settled.do(settled.allocate(asked))
    settled.block(after_ms=200_000)  # tickets are stale now; the answer is the original all the same
    again = settled.do(settled.allocate(asked))
    assert (again.reason, again.height) == (None, first.height)
    assert settled.asset(settled.cpu_id).reserved == 40
    assert settled.reason(settled.allocate(asked, amount=41)) is Reason.AllocationConflict


def test_an_ended_allocation_does_not_come_back(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 40)
    replay = settled.allocate(asked)
    assert settled.reason(replay) is None
    assert settled.reason(settled.release(asked.allocation_id)) is None
    assert settled.reason(replay) is Reason.AllocationEnded
    assert settled.reason(settled.release(asked.allocation_id)) is Reason.AllocationEnded
    settled.block(after_ms=650_000)
    assert settled.reason(replay) is Reason.Expired
    settled.block(after_ms=20_000)
    assert settled.allocation(asked.allocation_id) is None
    assert not [key for key in settled.state.entries if key.startswith((b"ended/", b"due/", b"alloc/"))]
    assert settled.reason(settled.release(asked.allocation_id)) is Reason.NoSuchAllocation


def test_leases_expire_by_block_time(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 40, lease_seconds=5)
    assert settled.reason(settled.allocate(asked)) is None
    settled.block(after_ms=4_900)
    assert settled.asset(settled.cpu_id).reserved == 40
    settled.block(after_ms=200)
    record = settled.allocation(asked.allocation_id)
    assert record is not None
    assert record.state == ledger_pb2.ALLOCATION_STATE_EXPIRED
    assert settled.asset(settled.cpu_id).reserved == 0
    assert settled.reason(settled.allocate(asked)) is Reason.AllocationEnded


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"amount": 0}, Reason.Malformed),
        ({"amount": 101}, Reason.InsufficientCapacity),
        ({"amount": 2**64 - 1}, Reason.InsufficientCapacity),
        ({"namespace": ""}, Reason.Malformed),
        ({"name": "n" * 254}, Reason.Malformed),
        ({"uid": ""}, Reason.Malformed),
        ({"uid": "other"}, Reason.IdentifierWrong),
        ({"port": 0}, Reason.Malformed),
        ({"port": 65536}, Reason.Malformed),
        ({"capability_hash": b"x"}, Reason.Malformed),
        ({"privacy_level": 0}, Reason.Malformed),
        ({"privacy_level": 9}, Reason.Malformed),
        ({"privacy_level": PUBLIC}, Reason.PrivacyForbidden),
        ({"lease_seconds": 0}, Reason.LeaseInvalid),
        ({"lease_seconds": 2**63}, Reason.LeaseInvalid),
        ({"max_price_per_hour": "9"}, Reason.PriceTooHigh),
        ({"min_trust_score": 5001}, Reason.TrustTooLow),
        ({"min_trust_score": 10_001}, Reason.Malformed),
        ({"max_price_per_hour": "1.5"}, Reason.Malformed),
        ({"address": b"\xfd" + bytes(15)}, Reason.AddressWrong),
        ({"address_counter": 1}, Reason.AddressWrong),
        ({"asset_id": b"x" * 32}, Reason.NoSuchAsset),
    ],
)
def test_wrong_allocations(settled: Settled, fields: dict[str, Any], reason: Reason) -> None:
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    terms = ledger_pb2.Sharing(privacy_level=PRIVATE, price_per_hour="1000")
    changed = ledger_pb2.UpdateAsset(asset_id=settled.cpu_id, revision=1, capacity=100, sharing=terms)
    assert settled.reason(settled.tx(settled.node, refs, update_asset=changed)) is None
    asked = allocation(settled.node, settled.cpu, "u", 1)
    assert settled.reason(settled.allocate(asked, **fields)) is reason
    assert settled.reason(settled.allocate(asked, max_price_per_hour="10", min_trust_score=5000)) is None


def test_one_flipped_bit_in_a_mapping_is_refused(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    for bit in range(128):
        address = bytearray(asked.address)
        address[bit // 8] ^= 1 << bit % 8
        assert settled.reason(settled.allocate(asked, address=bytes(address))) is Reason.AddressWrong


def test_what_an_allocation_remembers_keeps_no_record_of_signer_or_owner(settled: Settled) -> None:
    """Ten thousand of them may wait, each asked for by others and of others: their records have some 10 KB each."""
    asked = allocation(settled.node, settled.cpu, "u", 1)
    decoded = operations.decode(settled.allocate(asked))
    block = Block(settled.height + 1, settled.now_ms, bytes(32), ())
    assert judge(settled.state, block, decoded, verify_now) == block.height
    records = [weakref.ref(signer_of(settled.state, each.key_id)) for each in (settled.operator, settled.node)]
    assert all(each() is not None for each in records)
    context._signer.cache_clear()
    tickets._stake.cache_clear()
    assert [each() for each in records] == [None, None]


def test_paused_retired_and_taken(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    settled.state.entries[keys.address(asked.address)] = b"x" * 32
    assert settled.reason(settled.allocate(asked)) is Reason.AddressTaken
    del settled.state.entries[keys.address(asked.address)]
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    terms = ledger_pb2.Sharing(privacy_level=PRIVATE, paused=True)
    changed = ledger_pb2.UpdateAsset(asset_id=settled.cpu_id, revision=1, capacity=100, sharing=terms)
    assert settled.reason(settled.tx(settled.node, refs, update_asset=changed)) is None
    assert settled.reason(settled.allocate(asked)) is Reason.AssetPaused
    gone = ledger_pb2.RetireAsset(asset_id=settled.cpu_id, revision=2)
    assert settled.reason(settled.tx(settled.node, refs, retire_asset=gone)) is None
    assert settled.reason(settled.allocate(asked)) is Reason.AssetRetired


def test_privacy_is_the_owners_word(settled: Settled) -> None:
    stranger = settled.enrol(trust_pb2.ROLE_OPERATOR, "operator-2", cluster_uid=OTHER_CLUSTER, cluster=2)

    def ask(
        asset: ledger_pb2.RegisterAsset, level: ledger_pb2.PrivacyLevel, own: bool, namespace: str = "a"
    ) -> Reason | None:
        who = settled.operator if own else stranger
        uid = f"{asset.name}-{level}-{own}-{namespace}"
        asked = allocation(
            settled.node, asset, uid, 1, privacy=level, namespace=namespace, cluster_uid=who.body.cluster_uid
        )
        refs = settled.refs(who, settled.node, asset.work_device)
        return settled.reason(settled.tx(who, refs, allocate=asked))

    def share(name: str, level: ledger_pb2.PrivacyLevel, *namespaces: str) -> ledger_pb2.RegisterAsset:
        asset = registration(settled.node, CPU, name, 10, privacy=level, namespaces=namespaces)
        settled.win(settled.node, asset.asset_id)
        return settled.register(settled.node, asset)

    private, named = share("p", PRIVATE), share("n", PRIVATE, "a", "c")
    public, verified = share("u", PUBLIC), share("v", VERIFIED)
    assert ask(private, PRIVATE, own=True) is None
    assert ask(private, PRIVATE, own=False) is Reason.PrivacyForbidden
    assert ask(private, PUBLIC, own=True) is Reason.PrivacyForbidden
    assert ask(named, PRIVATE, own=True, namespace="c") is None
    assert ask(named, PRIVATE, own=True, namespace="b") is Reason.PrivacyForbidden
    assert ask(public, PUBLIC, own=False) is None
    assert ask(public, PRIVATE, own=True) is None
    assert ask(public, PRIVATE, own=False) is Reason.PrivacyForbidden
    assert ask(public, VERIFIED, own=False) is Reason.PrivacyForbidden
    assert ask(verified, VERIFIED, own=False) is None


def test_who_may_allocate_and_release(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    assert settled.reason(settled.tx(settled.node, refs, allocate=asked)) is Reason.RoleForbidden
    assert settled.reason(settled.allocate(asked)) is None
    stranger = settled.enrol(trust_pb2.ROLE_OPERATOR, "operator-2", cluster_uid=OTHER_CLUSTER, cluster=2)
    other = settled.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert settled.reason(settled.release(asked.allocation_id, stranger)) is Reason.RoleForbidden
    assert settled.reason(settled.release(asked.allocation_id, other)) is Reason.RoleForbidden
    assert settled.reason(settled.release(asked.allocation_id, settled.node)) is None
    again = allocation(settled.node, settled.cpu, "u2", 1)
    assert settled.reason(settled.allocate(again)) is None
    successor = settled.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")  # the operator with a new key
    assert settled.reason(settled.release(again.allocation_id, successor)) is None


def test_a_dead_nodes_capacity_can_be_released(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    assert settled.reason(settled.allocate(asked)) is None
    settled.block(after_ms=1_800_000)  # half an hour without a proof
    assert settled.reason(settled.release(asked.allocation_id)) is None
    late = allocation(settled.node, settled.cpu, "u2", 1)
    assert settled.reason(settled.allocate(late)) is Reason.SpaceTicketStale


def test_a_living_nodes_old_tickets_release_nothing(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    assert settled.reason(settled.allocate(asked)) is None
    old = settled.refs(settled.operator, settled.node, settled.cpu_id)
    settled.block(after_ms=300_000)
    settled.win(settled.node, settled.cpu_id)
    new = settled.refs(settled.operator, settled.node, settled.cpu_id)
    new.work = old.work
    operation = ledger_pb2.Release(allocation_id=asked.allocation_id)
    assert settled.reason(settled.tx(settled.operator, new, release=operation)) is Reason.WorkTicketStale
    assert settled.reason(settled.release(asked.allocation_id)) is None


def test_many_at_once_get_exactly_what_is_there(settled: Settled) -> None:
    asked = [allocation(settled.node, settled.cpu, f"u{index}", 1) for index in range(150)]
    results = settled.block(*(settled.allocate(each) for each in asked))
    assert sum(result.reason is None for result in results) == 100
    assert {result.reason for result in results} == {None, Reason.InsufficientCapacity}
    assert settled.asset(settled.cpu_id).reserved == 100


steps = st.lists(
    st.tuples(st.sampled_from(["allocate", "release", "wait"]), st.integers(0, 7), st.integers(1, 60)), max_size=25
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_any_history_keeps_the_books(history: list[tuple[str, int, int]]) -> None:
    """Reserved is the sum of active allocations, within capacity, whatever happened."""
    settled = Settled(_ROOT)
    for deed, which, amount in history:
        asked = allocation(settled.node, settled.cpu, f"u{which}", amount, lease_seconds=20)
        asked.capability_hash = bytes([which]) * 32
        match deed:
            case "allocate":
                settled.do(settled.allocate(asked))
            case "release":
                settled.do(settled.release(asked.allocation_id))
            case "wait":
                settled.block(after_ms=amount * 200)
        records = [ledger_pb2.AllocationRecord.FromString(value) for _, value in settled.state.scan(keys.ALLOCATION)]
        active = [each for each in records if each.state == ledger_pb2.ALLOCATION_STATE_ACTIVE]
        amounts = [
            ledger_pb2.Operation.FromString(ledger_pb2.Envelope.FromString(each.envelope).operation).allocate.amount
            for each in active
        ]
        assert settled.asset(settled.cpu_id).reserved == sum(amounts) <= 100
        assert sum(1 for _ in settled.state.scan(keys.DUE)) == len(active)


_ROOT = TrustRoot()


@pytest.mark.parametrize(("attempt", "reason"), [(15, None), (16, Reason.AddressWrong)])
def test_a_tenant_does_not_choose_its_address(settled: Settled, attempt: int, reason: Reason | None) -> None:
    """The address fits the counter, but the counter must be one of the few that the allocation's id gives."""
    asked = allocation(settled.node, settled.cpu, "u", 1)
    asked.address_counter = addressing.allocation_counter(asked.allocation_id, attempt)
    body, kind = settled.node.body, addressing.AddressType.of_asset(settled.cpu.type)
    asked.address = addressing.asset_address(
        body.federation,
        body.cluster,
        settled.node.key_id,
        body.node_counter,
        kind,
        settled.cpu.hardware_id,
        asked.address_counter,
    ).packed
    assert settled.reason(settled.allocate(asked)) is reason
