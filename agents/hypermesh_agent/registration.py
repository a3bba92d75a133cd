"""What the ledger should hold of this node's hardware: a pure plan of Register, Update and Retire operations.

    directory (what is there) + records (what the ledger holds) + sharing (what the owner wants) -> deeds, in order

One deed an asset at a time; after each commit the plan is made again, so a crash between two steps costs nothing.
Hardware with nothing to give (a disk without the pool) is not registered: there would be nothing to reserve.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from hypermesh import addressing, quantities
from hypermesh.resources import ASSET_TYPE_NAMES, PRIVACY_LEVELS
from hypermesh.v1 import ledger_pb2

from .directory import NodeAsset
from .hardware import Kind
from .identity import NodeIdentity

Operation = ledger_pb2.RegisterAsset | ledger_pb2.UpdateAsset | ledger_pb2.RetireAsset


@dataclass(frozen=True, slots=True)
class Deed:
    """One operation to submit for one asset, with the device whose work ticket it names."""

    asset_id: bytes
    name: str
    operation: Operation
    work_device: bytes


def plan(
    identity: NodeIdentity,
    assets: Iterable[NodeAsset],
    records: Mapping[bytes, ledger_pb2.AssetRecord],
    sharing: Mapping[bytes, ledger_pb2.Sharing],
    counters: Mapping[bytes, int],
    unknown: Collection[Kind] = (),
) -> list[Deed]:
    """Deeds that bring `records` to what is there. `sharing` lacks assets whose resource is not seen yet: they wait.

    counters: address counters above 0, after a collision. unknown: kinds whose probe fails; none of them is retired.
    """
    deeds: list[Deed] = []
    present = {}
    for asset in assets:
        present[asset.asset_id] = asset
        record = records.get(asset.asset_id)
        wanted = sharing.get(asset.asset_id)
        if record is None or record.retired:
            if wanted is not None and asset.hardware.capacity > 0:
                follows = record.revision if record is not None else 0
                counter = counters.get(asset.asset_id, 0)
                operation = registration(identity, asset, wanted, follows, counter)
                deeds.append(Deed(asset.asset_id, asset.name, operation, asset.work_device))
            continue
        deed = _update(record, asset.hardware.capacity, wanted or record.registration.sharing)
        if deed is not None:
            deeds.append(deed)
    for asset_id, record in sorted(records.items()):
        gone = asset_id not in present and not record.retired and record.node == identity.key_id
        if gone and ASSET_TYPE_NAMES.get(record.registration.type) not in unknown:
            deed = _leave(record)
            if deed is not None:
                deeds.append(deed)
    return deeds


def registration(
    identity: NodeIdentity, asset: NodeAsset, sharing: ledger_pb2.Sharing, follows: int, counter: int
) -> ledger_pb2.RegisterAsset:
    """The registration of an asset that the ledger does not hold, or holds as retired at revision `follows`."""
    return ledger_pb2.RegisterAsset(
        asset_id=asset.asset_id,
        name=asset.name,
        type=asset.type,
        hardware_id=asset.hardware.hardware_id,
        capacity=asset.hardware.capacity,
        address=asset_address(identity, asset, counter).packed,
        address_counter=counter,
        sharing=sharing,
        work_device=asset.work_device,
        revision=follows,
    )


def asset_address(identity: NodeIdentity, asset: NodeAsset, counter: int) -> IPv6Address:
    """The asset's own proxy address."""
    kind = addressing.AddressType.of_asset(asset.type)
    return addressing.asset_address(
        identity.federation,
        identity.cluster,
        identity.key_id,
        identity.counter,
        kind,
        asset.hardware.hardware_id,
        counter,
    )


def sharing_of(spec: Mapping[str, Any]) -> ledger_pb2.Sharing:
    """The owner's word in an Asset's spec, as the ledger keeps it. Raises KeyError, QuantityInvalid for what the CRD
    refuses already."""
    word = spec.get("sharing") or {}
    return ledger_pb2.Sharing(
        privacy_level=PRIVACY_LEVELS[word.get("privacyLevel", "Private")],
        owner_namespaces=sorted(set(word.get("ownerNamespaces") or ())),
        price_per_hour=str(quantities.parse_caesar(str(word.get("pricePerHour", "0")))),
        paused=bool(word.get("paused", False)),
    )


def _update(record: ledger_pb2.AssetRecord, capacity: int, sharing: ledger_pb2.Sharing) -> Deed | None:
    """Never below what is reserved: that was promised. What has nothing more to give leaves when it is free.

    A delegate's word stands as long as the owner's is what it was when the delegate spoke.
    """
    if capacity == 0 and record.reserved == 0:
        return _retire(record)
    bounded = max(capacity, record.reserved)
    held = record.registration
    if record.HasField("owner_sharing") and record.owner_sharing == sharing:
        sharing = held.sharing
    if held.capacity == bounded and held.sharing == sharing:
        return None
    operation = ledger_pb2.UpdateAsset(
        asset_id=held.asset_id, revision=record.revision, capacity=bounded, sharing=sharing
    )
    return Deed(held.asset_id, held.name, operation, held.work_device)


def _leave(record: ledger_pb2.AssetRecord) -> Deed | None:
    """Hardware that is gone: retired when nothing is reserved, else paused until then."""
    if record.reserved == 0:
        return _retire(record)
    paused = ledger_pb2.Sharing()
    paused.CopyFrom(record.registration.sharing)
    paused.paused = True
    return _update(record, record.reserved, paused)


def _retire(record: ledger_pb2.AssetRecord) -> Deed:
    held = record.registration
    operation = ledger_pb2.RetireAsset(asset_id=held.asset_id, revision=record.revision)
    return Deed(held.asset_id, held.name, operation, held.work_device)
