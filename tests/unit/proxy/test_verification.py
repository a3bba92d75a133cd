"""The chain of checks: what is right passes, and every single thing that is wrong is refused with its own reason."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy_world import Signed, World, issue, member

from hypermesh import addressing, falcon, operations
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.proxy import verification
from hypermesh_agent.proxy.verification import Claim, Refusal, Standpoint


def now() -> int:
    return time.time_ns() // 1_000_000


def check(world: World, signed: Signed, here: Standpoint | None = None, **more: int) -> Claim | Refusal:
    return verification.verify(
        signed.record, here or world.here, world.nodes, world.assets, more.get("now_ms", now()), more.get("seen", 0)
    )


def reason(outcome: Claim | Refusal) -> str:
    assert isinstance(outcome, Refusal), "it was believed"
    assert outcome.message
    return str(outcome.reason)


@pytest.mark.parametrize("type_", ledger_pb2.AssetType.values()[1:])
def test_a_right_mapping_passes(world: World, type_: int) -> None:
    signed = world.allocation(type_)
    claim = check(world, signed)
    assert isinstance(claim, Claim)
    assert claim.address in world.here.prefix


def test_one_flipped_bit_anywhere_in_the_signed_bytes_is_refused(world: World) -> None:
    """All of them, one after the other; and with the record's hash forged along, as a forger would."""
    signed = world.allocation()
    right = signed.record.envelope
    believed = []
    for bit in range(len(right) * 8):
        damaged = bytearray(right)
        damaged[bit // 8] ^= 1 << bit % 8
        signed.record.envelope = bytes(damaged)
        signed.record.tx_hash = operations.tx_hash(signed.record.envelope)
        if not isinstance(check(world, signed), Refusal):
            believed.append(bit)
    assert believed == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=4096))
def test_arbitrary_bytes_are_refused_and_never_raise(world: World, envelope: bytes) -> None:
    record = ledger_pb2.AllocationRecord(
        allocation_id=bytes(32), state=ledger_pb2.ALLOCATION_STATE_ACTIVE, envelope=envelope, height=1
    )
    assert isinstance(verification.verify(record, world.here, world.nodes, world.assets, now()), Refusal)


ASSETS = st.builds(
    ledger_pb2.RegisterAsset,
    type=st.sampled_from([0, 3, 2, 77, -1]),
    hardware_id=st.sampled_from(["numa-0", ""]),
    capacity=st.integers(0, 3),
    sharing=st.builds(
        ledger_pb2.Sharing,
        privacy_level=st.sampled_from([0, 1, 99]),
        price_per_hour=st.sampled_from(["", "0", "7"]) | st.text(max_size=45),
    ),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ASSETS, st.integers(0, 9), st.text(max_size=45))
def test_whatever_the_mirror_says_of_the_asset_does_not_raise(
    world: World, registration: ledger_pb2.RegisterAsset, height: int, limit: str
) -> None:
    operation = world.operation()
    operation.allocate.max_price_per_hour = limit or "1000"
    asset = ledger_pb2.AssetRecord(registration=registration, node=world.node.key_id, height=height)
    signed = world.signed(operation)
    assets = {operation.allocate.asset_id: asset}
    assert isinstance(verification.verify(signed.record, world.here, world.nodes, assets, now()), Claim | Refusal)


def test_an_asset_without_capacity_has_no_price(world: World) -> None:
    operation = world.operation()
    operation.allocate.max_price_per_hour = "1000"
    empty = ledger_pb2.AssetRecord()
    empty.CopyFrom(world.asset(ledger_pb2.ASSET_TYPE_MEMORY))
    empty.registration.capacity = 0
    assets = world.assets | {operation.allocate.asset_id: empty}
    signed = world.signed(operation)
    assert reason(verification.verify(signed.record, world.here, world.nodes, assets, now())) == "Malformed"


@settings(max_examples=128, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 127))
def test_every_bit_of_a_well_signed_address_matters(world: World, bit: int) -> None:
    operation = world.operation()
    value = int.from_bytes(operation.allocate.address, "big") ^ 1 << bit
    operation.allocate.address = value.to_bytes(16, "big")
    assert reason(check(world, world.signed(operation))) == "AddressWrong"


def spoil_chain(operation: ledger_pb2.Operation) -> None:
    operation.chain_id = "another-chain"


def spoil_port(operation: ledger_pb2.Operation) -> None:
    operation.allocate.port = 22


def spoil_counter(operation: ledger_pb2.Operation) -> None:
    operation.allocate.address_counter += 1


def spoil_asset(operation: ledger_pb2.Operation) -> None:
    operation.allocate.asset_id = secrets.token_bytes(32)


def spoil_capability(operation: ledger_pb2.Operation) -> None:
    operation.allocate.capability_hash = b"short"


def spoil_validity(operation: ledger_pb2.Operation) -> None:
    operation.valid_until_ms = now() - 1_000


def spoil_validity_far(operation: ledger_pb2.Operation) -> None:
    operation.valid_until_ms = now() + 3_600_000


def spoil_lease(operation: ledger_pb2.Operation) -> None:
    operation.allocate.lease_seconds = 0


def spoil_kind(operation: ledger_pb2.Operation) -> None:
    allocation_id = operation.allocate.allocation_id
    operation.release.allocation_id = allocation_id


def spoil_federation(operation: ledger_pb2.Operation) -> None:
    fields = addressing.parse(operation.allocate.address)
    foreign = addressing.Fields(b"other", fields.cluster, fields.node, fields.type, fields.asset)
    operation.allocate.address = foreign.address.packed


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_chain, "WrongChain"),
        (spoil_port, "AddressWrong"),
        (spoil_counter, "AddressWrong"),
        (spoil_asset, "NoSuchAsset"),
        (spoil_capability, "Malformed"),
        (spoil_validity, "Expired"),
        (spoil_validity_far, "Expired"),
        (spoil_lease, "LeaseInvalid"),
        (spoil_kind, "Malformed"),
        (spoil_federation, "AddressWrong"),
    ],
)
def test_wrong_but_well_signed(world: World, spoil: Callable[[ledger_pb2.Operation], None], expected: str) -> None:
    operation = world.operation()
    spoil(operation)
    assert reason(check(world, world.signed(operation))) == expected


def test_the_record_must_agree_with_what_was_signed(world: World) -> None:
    for field, value, expected in (
        ("allocation_id", secrets.token_bytes(32), "IdentifierWrong"),
        ("tx_hash", secrets.token_bytes(32), "IdentifierWrong"),
        ("node", secrets.token_bytes(32), "AddressWrong"),
        ("state", ledger_pb2.ALLOCATION_STATE_RELEASED, "AllocationEnded"),
        ("expires_ms", now() + 7_200_000, "LeaseInvalid"),
        ("height", 0, "HeightRegressed"),
    ):
        assert reason(check(world, world.allocation(**{field: value}))) == expected, field


def test_window_and_height(world: World) -> None:
    signed = world.allocation()
    assert reason(check(world, signed, now_ms=signed.record.expires_ms)) == "Expired"
    assert isinstance(check(world, signed, now_ms=signed.record.expires_ms - 1), Claim)
    behind = signed.record.granted_ms - verification.CLOCK_SKEW_MS
    assert isinstance(check(world, signed, now_ms=behind), Claim)
    assert reason(check(world, signed, now_ms=behind - 1)) == "LeaseInvalid"
    assert isinstance(check(world, signed, seen=signed.record.height), Claim)
    assert reason(check(world, signed, seen=signed.record.height + 1)) == "HeightRegressed"


def test_who_signed(world: World) -> None:
    stranger = member(world.root, trust_pb2.ROLE_OPERATOR, "stranger")
    assert reason(check(world, world.signed(world.operation(), stranger))) == "UnknownSigner"
    assert reason(check(world, world.signed(world.operation(), world.node))) == "RoleForbidden"

    elsewhere = member(world.root, trust_pb2.ROLE_OPERATOR, "elsewhere", cluster=2, cluster_uid="other")
    world.nodes[elsewhere.key_id] = elsewhere.record
    assert reason(check(world, world.signed(world.operation(), elsewhere))) == "PrivacyForbidden"

    ended = member(world.root, trust_pb2.ROLE_OPERATOR, "ended", not_after=int(time.time()) - 10)
    world.nodes[ended.key_id] = ended.record
    assert reason(check(world, world.signed(world.operation(), ended))) == "CertificateInvalid"

    usurper = falcon.generate()
    foreign = member(usurper, trust_pb2.ROLE_OPERATOR, "foreign")
    world.nodes[foreign.key_id] = foreign.record
    assert reason(check(world, world.signed(world.operation(), foreign))) == "CertificateInvalid"

    self_made = issue(
        usurper,
        foreign.keypair.public,
        trust_pb2.ROLE_OPERATOR,
        "x",
        issuer=falcon.key_id(world.root.public),
        federation=world.here.federation,
    )
    world.nodes[foreign.key_id] = ledger_pb2.NodeRecord(key_id=foreign.key_id, certificate=self_made)
    assert reason(check(world, world.signed(world.operation(), foreign))) == "CertificateInvalid"

    borrowed = ledger_pb2.NodeRecord(key_id=foreign.key_id, certificate=world.operator.record.certificate)
    world.nodes[foreign.key_id] = borrowed
    assert reason(check(world, world.signed(world.operation(), foreign))) == "CertificateInvalid"


def test_an_operator_of_another_cluster_may_use_what_is_shared_with_all(world: World) -> None:
    guest = member(world.root, trust_pb2.ROLE_OPERATOR, "guest", cluster=2, cluster_uid="other")
    world.nodes[guest.key_id] = guest.record
    asset = world.asset(ledger_pb2.ASSET_TYPE_GPU)
    asset.registration.sharing.privacy_level = ledger_pb2.PRIVACY_LEVEL_PUBLIC
    operation = world.operation(ledger_pb2.ASSET_TYPE_GPU)
    operation.allocate.privacy_level = ledger_pb2.PRIVACY_LEVEL_PUBLIC
    try:
        assert isinstance(check(world, world.signed(operation, guest)), Claim)
        operation.allocate.privacy_level = ledger_pb2.PRIVACY_LEVEL_PRIVATE
        assert reason(check(world, world.signed(operation, guest))) == "PrivacyForbidden"
    finally:
        asset.registration.sharing.privacy_level = ledger_pb2.PRIVACY_LEVEL_PRIVATE


def test_a_lease_outlives_the_renewal_of_its_operators_certificate(world: World) -> None:
    """The ledger holds the newest certificate alone, and that one may be younger than the grant."""
    earlier = now() - 2 * 3_600_000
    operation = world.operation()
    operation.allocate.lease_seconds = 4 * 3600
    operation.valid_until_ms = earlier + 60_000
    signed = world.signed(operation, granted_ms=earlier, expires_ms=earlier + 4 * 3_600_000)
    public, begin = world.operator.keypair.public, int(time.time()) - 60
    renewed = issue(world.root, public, trust_pb2.ROLE_OPERATOR, "hypermesh-operator", not_before=begin)
    record = ledger_pb2.NodeRecord(key_id=world.operator.key_id, certificate=renewed, trust_score=5000)
    nodes = world.nodes | {world.operator.key_id: record}
    assert isinstance(verification.verify(signed.record, world.here, nodes, world.assets, now()), Claim)
    ended = issue(world.root, public, trust_pb2.ROLE_OPERATOR, "x", not_after=earlier // 1000)
    nodes[world.operator.key_id] = ledger_pb2.NodeRecord(key_id=world.operator.key_id, certificate=ended)
    outcome = verification.verify(signed.record, world.here, nodes, world.assets, now())
    assert reason(outcome) == "CertificateInvalid"


def test_sharing_that_changed_after_the_grant_is_for_new_tenants(world: World) -> None:
    guest = member(world.root, trust_pb2.ROLE_OPERATOR, "guest", cluster=2, cluster_uid="other")
    world.nodes[guest.key_id] = guest.record
    operation = world.operation(ledger_pb2.ASSET_TYPE_GPU)
    operation.allocate.privacy_level = ledger_pb2.PRIVACY_LEVEL_PUBLIC
    signed = world.signed(operation, guest)  # at height 7
    asset = world.asset(ledger_pb2.ASSET_TYPE_GPU)
    before = asset.height
    try:
        asset.height = 6
        assert reason(check(world, signed)) == "PrivacyForbidden"
        for asset.height in (7, 8):  # in the grant's own block, perhaps after it, and in the next
            assert isinstance(check(world, signed), Claim)
    finally:
        asset.height = before


def test_trust_threshold(world: World) -> None:
    signed = world.allocation()
    assert isinstance(check(world, signed, world.seen_from(minimum_trust=5000)), Claim)
    stricter = world.seen_from(minimum_trust=5001)
    assert reason(check(world, signed, stricter)) == "TrustTooLow"
    assert isinstance(check(world, signed, stricter, seen=1), Claim), "this node let it in already"


def test_the_tenants_limits(world: World) -> None:
    """Trust and price as they were at the grant: neither ends a running lease."""
    node, asset = world.nodes[world.node.key_id], world.asset(ledger_pb2.ASSET_TYPE_CPU)
    operation = world.operation(ledger_pb2.ASSET_TYPE_CPU, amount=1001)
    operation.allocate.min_trust_score = node.trust_score
    operation.allocate.max_price_per_hour = "2"  # all 8000 for 15: 1001 of it for 1.877, rounded up
    asset.registration.sharing.price_per_hour, before = "15", asset.height
    try:
        signed = world.signed(operation)
        assert isinstance(check(world, signed), Claim)
        operation.allocate.min_trust_score += verification.SCORE_DRIFT
        assert isinstance(check(world, world.signed(operation)), Claim), "it may have fallen since the grant"
        operation.allocate.min_trust_score += 1
        trusting = world.signed(operation)
        assert reason(check(world, trusting)) == "TrustTooLow"
        assert isinstance(check(world, trusting, seen=1), Claim), "this node let it in already"
        asset.registration.sharing.price_per_hour = "16"
        assert reason(check(world, signed)) == "PriceTooHigh"
        for asset.height in (signed.record.height, signed.record.height + 1):
            assert isinstance(check(world, signed), Claim), "the owner asks for more since, perhaps in the same block"
        asset.height, operation.allocate.max_price_per_hour = before, "dear"
        operation.allocate.min_trust_score = 0
        assert reason(check(world, world.signed(operation))) == "Malformed"
    finally:
        asset.registration.sharing.price_per_hour, asset.height = "", before


def test_signature_of_another_operation(world: World) -> None:
    first, second = world.allocation(), world.allocation()
    envelope = ledger_pb2.Envelope.FromString(first.record.envelope)
    envelope.signature = ledger_pb2.Envelope.FromString(second.record.envelope).signature
    first.record.envelope = envelope.SerializeToString(deterministic=True)
    first.record.tx_hash = operations.tx_hash(first.record.envelope)
    assert reason(check(world, first)) == "BadSignature"


def test_a_mapping_of_another_node_is_refused(world: World) -> None:
    other = member(world.root, trust_pb2.ROLE_NODE, "node-2")
    here = world.seen_from(
        key_id=other.key_id, prefix=addressing.node_prefix(world.here.federation, 1, other.key_id, 0)
    )
    assert reason(check(world, world.allocation(), here)) == "AddressWrong"


def test_order_of_the_chain_is_the_documented_one() -> None:
    assert [step.__name__ for step in verification.CHECKS] == [
        "check_form",
        "check_address",
        "check_certificate",
        "check_window",
        "check_limits",
        "check_trust",
        "check_signature",
    ]
