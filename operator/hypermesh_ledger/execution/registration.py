"""RegisterAsset, UpdateAsset, RetireAsset: a node's word on its own hardware."""

from __future__ import annotations

from typing import Final

from hypermesh import addressing, operations, quantities
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import behaviour, delegation, memory
from hypermesh_ledger.execution.context import Context, Signer, read, require, require_role
from hypermesh_ledger.execution.tickets import require_tickets

MAX_NAMESPACES: Final = 64
_TYPES: Final = frozenset(ledger_pb2.AssetType.values()) - {ledger_pb2.ASSET_TYPE_UNSPECIFIED}
_OWN_DEVICE: Final = frozenset({ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_GPU})


def register_asset(context: Context, signer: Signer, operation: ledger_pb2.RegisterAsset) -> int:
    """Returns the height at which the asset was registered (an earlier one for the same registration again)."""
    require_role(signer, trust_pb2.ROLE_NODE, "registering an asset")
    _check_registration(signer.key_id, operation)
    held = read(context.state, keys.asset(operation.asset_id), ledger_pb2.AssetRecord)
    if held is not None and not held.retired:
        if held.registration == operation and held.node == signer.key_id:
            return held.height
        raise Refused(Reason.RevisionConflict, f"Asset {operation.name} is registered already; update it.")
    follows = 0 if held is None else held.revision
    if operation.revision != follows:
        text = f"The registration of {operation.name} follows revision {operation.revision}, not {follows}."
        raise Refused(Reason.RevisionConflict, text)
    require_tickets(context, signer, signer.key_id, operation.work_device)
    memory.require_shown(context, signer.key_id, operation, operation.capacity)
    address = expected_address(
        signer.network, signer.key_id, operation.type, operation.hardware_id, operation.address_counter
    )
    take_address(context, operation.address, address, operation.asset_id)
    record = ledger_pb2.AssetRecord(
        registration=operation, node=signer.key_id, revision=follows + 1, height=context.height
    )
    context.put(keys.asset(operation.asset_id), record)
    context.state.put(keys.device(operation.work_device, operation.asset_id), keys.PRESENT)
    behaviour.counted(context, signer.key_id, operation, 1)
    return context.height


def update_asset(context: Context, signer: Signer, operation: ledger_pb2.UpdateAsset) -> int:
    """Capacity and sharing of a registered asset, by a delegate sharing only; returns the height."""
    record = _own_asset(context, signer, operation.asset_id, operation.revision, "updating", delegation.SHARING)
    check_sharing(operation.sharing)
    require(operation.capacity > 0, "The capacity is 0; retire the asset instead.")
    require_tickets(context, signer, record.node, record.registration.work_device)
    if operation.capacity < record.reserved:
        text = f"{record.registration.name} has {record.reserved} reserved, more than {operation.capacity}."
        raise Refused(Reason.AssetBusy, text)
    if signer.key_id != record.node and operation.capacity != record.registration.capacity:
        text = f"The capacity of {record.registration.name} is its own node's to tell."
        raise Refused(Reason.RoleForbidden, text)
    if operation.capacity > record.registration.capacity:
        wanted = operation.capacity - record.reserved
        memory.require_shown(context, record.node, record.registration, wanted)
    record.registration.capacity = operation.capacity
    _share(record, operation.sharing, signer.key_id == record.node)
    record.revision += 1
    record.height = context.height
    context.put(keys.asset(operation.asset_id), record)
    return context.height


def retire_asset(context: Context, signer: Signer, operation: ledger_pb2.RetireAsset) -> int:
    """The hardware is gone, or no longer shared at all; returns the height."""
    record = _own_asset(context, signer, operation.asset_id, operation.revision, "retiring")
    require_tickets(context, signer, signer.key_id, record.registration.work_device)
    if record.reserved:
        raise Refused(Reason.AssetBusy, f"{record.registration.name} has {record.reserved} reserved.")
    record.ClearField("owner_sharing")
    context.state.delete(keys.address(record.registration.address))
    record.retired = True
    record.revision += 1
    record.height = context.height
    context.put(keys.asset(operation.asset_id), record)
    behaviour.counted(context, record.node, record.registration, -1)
    return context.height


def check_sharing(sharing: ledger_pb2.Sharing) -> None:
    """Raises Refused(Malformed)."""
    require(sharing.privacy_level in ledger_pb2.PrivacyLevel.values(), "The privacy level is unknown.")
    require(sharing.privacy_level != ledger_pb2.PRIVACY_LEVEL_UNSPECIFIED, "The privacy level is not set.")
    namespaces = list(sharing.owner_namespaces)
    require(namespaces == sorted(set(namespaces)), "The owner's namespaces are not sorted, or one is there twice.")
    require(len(namespaces) <= MAX_NAMESPACES, f"More than {MAX_NAMESPACES} owner namespaces.")
    require(all(0 < len(each) <= 63 for each in namespaces), "An owner namespace is not 1 to 63 characters long.")
    parse_grains(sharing.price_per_hour or "0", "price")


def parse_grains(text: str, name: str) -> int:
    """See quantities.parse_grains. Raises Refused(Malformed)."""
    try:
        return quantities.parse_grains(text)
    except quantities.QuantityInvalid as error:
        raise Refused(Reason.Malformed, f"The {name}: {error}.") from error


def expected_address(network: bytes, owner: bytes, asset_type: int, hardware_id: str, counter: int) -> bytes:
    """16 bytes: where an asset (or an allocation of it) must live; network, owner: `Signer.network` and its key id."""
    kind = addressing.AddressType.of_asset(asset_type)
    return network + addressing.asset_suffix(owner, kind, hardware_id, counter)


def take_address(context: Context, claimed: bytes, expected: bytes, holder: bytes) -> None:
    """Raises Refused(AddressWrong | AddressTaken)."""
    if claimed != expected:
        text = f"The address {claimed.hex()} is not {expected.hex()}, which node, asset and counter give."
        raise Refused(Reason.AddressWrong, text)
    key = keys.address(claimed)
    if context.state.get(key) not in (None, holder):
        raise Refused(Reason.AddressTaken, f"The address {claimed.hex()} is in use.")
    context.state.put(key, holder)


def _check_registration(node: bytes, operation: ledger_pb2.RegisterAsset) -> None:
    require(operation.type in _TYPES, "The asset type is unknown.")
    require(0 < len(operation.hardware_id) <= 253, "The hardware id is not 1 to 253 characters long.")
    require(0 < len(operation.name) <= 253, "The asset's name is not 1 to 253 characters long.")
    require(operation.capacity > 0, "The capacity is 0.")
    require(len(operation.work_device) == 32, "The work device is not an asset id of 32 bytes.")
    check_sharing(operation.sharing)
    if operation.asset_id != operations.asset_id(node, operation.type, operation.hardware_id):
        text = f"Asset id {operation.asset_id.hex()[:16]} does not follow from node, type and hardware id."
        raise Refused(Reason.IdentifierWrong, text)
    if operation.type in _OWN_DEVICE and operation.work_device != operation.asset_id:
        raise Refused(Reason.WorkTicketForeign, f"{operation.name} computes, so its own work must prove it.")


def _share(record: ledger_pb2.AssetRecord, sharing: ledger_pb2.Sharing, by_owner: bool) -> None:
    """A delegate's word stands until the owner changes its own: which that was is kept beside it.

    An owner that repeats the delegate's word (changing the capacity only) leaves it standing.
    """
    held = record.registration.sharing
    if by_owner and sharing != held:
        record.ClearField("owner_sharing")
    elif not by_owner and not record.HasField("owner_sharing"):
        record.owner_sharing.CopyFrom(held)
    held.CopyFrom(sharing)
    if record.HasField("owner_sharing") and record.owner_sharing == sharing:
        record.ClearField("owner_sharing")


def _own_asset(
    context: Context,
    signer: Signer,
    asset_id: bytes,
    revision: int,
    deed: str,
    right: ledger_pb2.DelegationRight | None = None,
) -> ledger_pb2.AssetRecord:
    """The signer's own asset, or one of an owner that delegated the right (None: it can't be delegated) to it."""
    found = read(context.state, keys.asset(asset_id), ledger_pb2.AssetRecord)
    delegated = found is not None and right is not None and delegation.granted(context, found.node, signer, right)
    if not delegated:
        require_role(signer, trust_pb2.ROLE_NODE, f"{deed} an asset")
    record = context.asset(asset_id)
    if record.node != signer.key_id and not delegated:
        raise Refused(Reason.RoleForbidden, f"{record.registration.name} belongs to another node.")
    if record.retired:
        raise Refused(Reason.AssetRetired, f"{record.registration.name} is retired.")
    if record.revision != revision:
        text = f"{record.registration.name} is at revision {record.revision}, not {revision}."
        raise Refused(Reason.RevisionConflict, text)
    return record
