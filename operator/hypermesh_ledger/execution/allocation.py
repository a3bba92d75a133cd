"""Allocate and Release, and what time does to leases: capacity is reserved and given back here, nowhere else.

An active allocation holds three things: its amount of the asset's capacity, its address, and an entry in the index of
lease ends. It gives back all three at once, whether released or expired; its record stays as a tombstone until no
valid copy of its transaction can exist, so that a replay is told AllocationEnded.
"""

from __future__ import annotations

from typing import Final

from hypermesh import addressing, operations, quantities
from hypermesh.operations import Decoded
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import behaviour, delegation, memory
from hypermesh_ledger.execution.context import Context, Signer, read, require, require_role
from hypermesh_ledger.execution.registration import expected_address, parse_grains, take_address
from hypermesh_ledger.execution.tickets import require_tickets
from hypermesh_ledger.state import Fork

MAX_LEASE_SECONDS: Final = 366 * 24 * 3600
CLOCK_TOLERANCE_MS: Final = 60_000
REPLAY_WINDOW_MS: Final = operations.VALIDITY_MS + CLOCK_TOLERANCE_MS
"""A transaction can be valid for this long at most; so ended allocations are remembered for as long."""
ADDRESS_ATTEMPTS: Final = 16
"""Addresses that an allocation may have; the next is tried when one is taken. More choice would let a tenant pick."""
MAX_TRUST_SCORE: Final = 10_000
PER_BLOCK: Final = 2_000
"""Leases ended, and tombstones removed, in one block at most."""

_PRIVATE: Final = ledger_pb2.PRIVACY_LEVEL_PRIVATE
_LEVELS: Final = frozenset(ledger_pb2.PrivacyLevel.values())


def allocate(context: Context, signer: Signer, operation: ledger_pb2.Allocate) -> int:
    """Returns the height of the reservation (the original one when the same is asked again)."""
    require_role(signer, trust_pb2.ROLE_OPERATOR, "allocating")
    context.decoded.once(_check_form, signer.body.cluster_uid)
    held = read(context.state, keys.allocation(operation.allocation_id), ledger_pb2.AllocationRecord)
    if held is not None:
        return _again(held, operation)
    record = context.asset(operation.asset_id)
    owner = context.owner(record)
    _check_terms(signer, owner, record, operation)
    require_tickets(context, signer, record.node, record.registration.work_device)
    free = record.registration.capacity - record.reserved
    if operation.amount > free:
        text = f"{record.registration.name} has {free} free, {operation.amount} are asked for."
        raise Refused(Reason.InsufficientCapacity, text)
    memory.grant(context, record.node, record.registration, operation.amount)
    hardware = record.registration.type, record.registration.hardware_id
    address = context.decoded.once(_address, owner.network, owner.key_id, *hardware)
    take_address(context, operation.address, address, operation.allocation_id)
    if context.trial:
        return context.height
    record.reserved += operation.amount
    context.put(keys.asset(operation.asset_id), record)
    expires_ms = context.time_ms + operation.lease_seconds * 1000
    context.put(
        keys.allocation(operation.allocation_id),
        ledger_pb2.AllocationRecord(
            allocation_id=operation.allocation_id,
            state=ledger_pb2.ALLOCATION_STATE_ACTIVE,
            node=record.node,
            granted_ms=context.time_ms,
            expires_ms=expires_ms,
            height=context.height,
            tx_hash=context.decoded.tx_hash,
            envelope=context.decoded.raw,
        ),
    )
    context.state.put(keys.due(expires_ms, operation.allocation_id), keys.PRESENT)
    return context.height


def release(context: Context, signer: Signer, operation: ledger_pb2.Release) -> int:
    """Returns the height. The signer is the owning node, an operator of the tenant's cluster, or their delegate."""
    held = read(context.state, keys.allocation(operation.allocation_id), ledger_pb2.AllocationRecord)
    name = operation.allocation_id.hex()[:16]
    if held is None:
        raise Refused(Reason.NoSuchAllocation, f"Allocation {name} is not in the ledger.")
    if held.state != ledger_pb2.ALLOCATION_STATE_ACTIVE:
        raise Refused(Reason.AllocationEnded, f"Allocation {name} has ended already.")
    envelope, allocated = _signed(held)
    tenant = context.node(envelope.signer)
    same_cluster = tenant is not None and tenant.body.cluster_uid == signer.body.cluster_uid
    is_operator = signer.body.role == trust_pb2.ROLE_OPERATOR and same_cluster
    for_tenant = is_operator or delegation.granted(context, envelope.signer, signer, delegation.RELEASE)
    for_owner = signer.key_id == held.node
    if not (for_tenant or for_owner or delegation.granted(context, held.node, signer, delegation.RELEASE)):
        text = f"{signer.body.subject} is neither the owning node, an operator of the tenant's cluster, nor a delegate."
        raise Refused(Reason.RoleForbidden, text)
    record = context.asset(allocated.asset_id)
    require_tickets(context, signer, record.node, record.registration.work_device, any_age=True)
    if for_tenant:
        behaviour.lease_over(context.state, held, record.registration.work_device, context.time_ms)
    end(context.state, held, ledger_pb2.ALLOCATION_STATE_RELEASED, context.time_ms, context.height)
    return context.height


def end(
    state: Fork,
    held: ledger_pb2.AllocationRecord,
    how: ledger_pb2.AllocationState,
    time_ms: int,
    height: int,
) -> None:
    """Give back capacity, address and lease of an active allocation; leave the tombstone."""
    _, allocated = _signed(held)
    record = read(state, keys.asset(allocated.asset_id), ledger_pb2.AssetRecord)
    if record is None or record.reserved < allocated.amount:
        raise ValueError(f"state reserves less than allocation {held.allocation_id.hex()} holds")
    record.reserved -= allocated.amount
    state.put(keys.asset(allocated.asset_id), operations.canonical(record))
    state.delete(keys.address(allocated.address))
    state.delete(keys.due(held.expires_ms, held.allocation_id))
    held.state = how
    held.height = height
    state.put(keys.allocation(held.allocation_id), operations.canonical(held))
    state.put(keys.ended(time_ms + REPLAY_WINDOW_MS, held.allocation_id), keys.PRESENT)


def expire(state: Fork, time_ms: int, height: int) -> None:
    """End the leases that are over at block time, and forget the tombstones whose replay window is over."""
    for allocation_id in _elapsed(state, keys.DUE, time_ms):
        held = read(state, keys.allocation(allocation_id), ledger_pb2.AllocationRecord)
        if held is None:
            raise ValueError(f"state has a lease but no allocation {allocation_id.hex()}")
        record = read(state, keys.asset(_signed(held)[1].asset_id), ledger_pb2.AssetRecord)
        if record is not None:
            behaviour.lease_over(state, held, record.registration.work_device, time_ms)
        end(state, held, ledger_pb2.ALLOCATION_STATE_EXPIRED, time_ms, height)
    for allocation_id in _elapsed(state, keys.ENDED, time_ms, forget=True):
        state.delete(keys.allocation(allocation_id))


def _elapsed(state: Fork, index: bytes, time_ms: int, forget: bool = False) -> list[bytes]:
    found: list[bytes] = []
    elapsed: list[bytes] = []
    for key, _ in state.scan(index):
        if keys.index_time(key, index) > time_ms or len(found) == PER_BLOCK:
            break
        found.append(keys.index_id(key, index))
        elapsed.append(key)
    if forget:
        for key in elapsed:
            state.delete(key)
    return found


def _signed(held: ledger_pb2.AllocationRecord) -> tuple[ledger_pb2.Envelope, ledger_pb2.Allocate]:
    envelope = ledger_pb2.Envelope.FromString(held.envelope)
    return envelope, ledger_pb2.Operation.FromString(envelope.operation).allocate


def _again(held: ledger_pb2.AllocationRecord, operation: ledger_pb2.Allocate) -> int:
    name = f"{operation.namespace}/{operation.name}"
    if held.state != ledger_pb2.ALLOCATION_STATE_ACTIVE:
        raise Refused(Reason.AllocationEnded, f"Allocation {name} was released or has expired.")
    if _signed(held)[1] != operation:
        raise Refused(Reason.AllocationConflict, f"Allocation {name} is committed with other terms.")
    return held.height


def _address(decoded: Decoded, network: bytes, owner: bytes, asset_type: int, hardware_id: str) -> bytes:
    """Where the allocation of an asset in this owner's network must live; 16 bytes. Raises Refused(AddressWrong)."""
    operation = decoded.operation.allocate
    asked, allocation_id = operation.address_counter, operation.allocation_id
    if asked not in (addressing.allocation_counter(allocation_id, each) for each in range(ADDRESS_ATTEMPTS)):
        text = f"The address counter {asked} does not follow from the allocation's id."
        raise Refused(Reason.AddressWrong, text)
    return expected_address(network, owner, asset_type, hardware_id, asked)


def _check_form(decoded: Decoded, cluster_uid: str) -> None:
    operation = decoded.operation.allocate
    require(0 < len(operation.namespace) <= 63, "The namespace is not 1 to 63 characters long.")
    require(0 < len(operation.name) <= 253, "The name is not 1 to 253 characters long.")
    require(0 < len(operation.uid) <= 128, "The resource's uid is not 1 to 128 characters long.")
    require(operation.amount > 0, "The amount is 0.")
    require(0 < operation.port < 65536, f"The port {operation.port} is not 1 to 65535.")
    require(len(operation.capability_hash) == 32, "The capability hash is not 32 bytes long.")
    require(operation.privacy_level in _LEVELS, "The privacy level is unknown.")
    require(operation.privacy_level != ledger_pb2.PRIVACY_LEVEL_UNSPECIFIED, "The privacy level is not set.")
    require(operation.min_trust_score <= MAX_TRUST_SCORE, f"The trust limit is above {MAX_TRUST_SCORE}.")
    if operation.allocation_id != operations.allocation_id(cluster_uid, operation.uid):
        text = f"Allocation id {operation.allocation_id.hex()[:16]} does not follow from cluster and resource uid."
        raise Refused(Reason.IdentifierWrong, text)
    if not 0 < operation.lease_seconds <= MAX_LEASE_SECONDS:
        raise Refused(Reason.LeaseInvalid, f"A lease of {operation.lease_seconds} seconds is not possible.")


def _check_terms(signer: Signer, owner: Signer, record: ledger_pb2.AssetRecord, operation: ledger_pb2.Allocate) -> None:
    """The owner's word, who may use the asset and on what terms; the tenant's, from whom and at what price."""
    registration = record.registration
    sharing = registration.sharing
    if record.retired:
        raise Refused(Reason.AssetRetired, f"{registration.name} is retired.")
    if sharing.paused:
        raise Refused(Reason.AssetPaused, f"{registration.name} takes no new allocations.")
    same_cluster = signer.body.cluster_uid == owner.body.cluster_uid
    asked, shared = operation.privacy_level, sharing.privacy_level
    if _PRIVATE in (asked, shared) and not same_cluster:
        raise Refused(Reason.PrivacyForbidden, f"{registration.name} is not of this cluster, and privacy is Private.")
    if asked not in (shared, _PRIVATE):
        text = f"{registration.name} is shared as {_level(shared)}, not as {_level(asked)}."
        raise Refused(Reason.PrivacyForbidden, text)
    owners = sharing.owner_namespaces
    if shared == _PRIVATE and owners and operation.namespace not in owners:
        raise Refused(Reason.PrivacyForbidden, f"{registration.name} is not shared with {operation.namespace}.")
    if owner.record.trust_score < operation.min_trust_score:
        text = (
            f"The trust score {owner.record.trust_score} of {owner.body.subject} is below {operation.min_trust_score}."
        )
        raise Refused(Reason.TrustTooLow, text)
    _check_price(registration, operation)


def _check_price(registration: ledger_pb2.RegisterAsset, operation: ledger_pb2.Allocate) -> None:
    if not operation.max_price_per_hour:
        return
    limit = parse_grains(operation.max_price_per_hour, "price limit")
    whole = parse_grains(registration.sharing.price_per_hour or "0", "price")
    price = quantities.hourly_price(whole, operation.amount, registration.capacity)
    if price > limit:
        text = f"{operation.amount} of {registration.name} cost {price} grains an hour, the limit is {limit}."
        raise Refused(Reason.PriceTooHigh, text)


def _level(level: ledger_pb2.PrivacyLevel) -> str:
    return ledger_pb2.PrivacyLevel.Name(level).removeprefix("PRIVACY_LEVEL_").capitalize()
