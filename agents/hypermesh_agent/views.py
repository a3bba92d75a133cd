"""Asset resources as this node writes them: a pure rendering of hardware, ledger record and tickets.

    NodeAsset + AssetRecord + tickets + problem -> status -> written only when `differs` from what the API shows

The newest tickets and moving figures (a clock frequency) are shown with the next real change, and tickets at the latest
when those shown are past their grace: a machine at rest writes nothing but its Lease.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any, Final

from hypermesh import conditions, quantities
from hypermesh.conditions import Condition
from hypermesh.resources import ASSET_TYPE_NAMES, NODE_LABEL, RESOURCE_OF_TYPE, TYPE_LABEL, node_label
from hypermesh.v1 import ledger_pb2, proofs_pb2

from .directory import NodeAsset

Object = dict[str, Any]
_SINCE: Final = "lastTransitionTime"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the last deed for an asset failed: a CamelCase reason and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Proofs:
    """The four newest tickets of an asset (hashes, 32 bytes), the epoch of the oldest of them, block time in ms."""

    epoch: int
    space: bytes
    stake: bytes
    work: bytes
    time: bytes
    proven_ms: int

    def fresh(self, epoch: int, grace: int) -> bool:
        return self.epoch + grace >= epoch


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the ledger says of one asset; record None: not registered, proofs None: tickets are missing.

    problem: why the last deed for it failed. proving: why the node's tickets are not fresh. serving: why proxy
    addresses of the node can't be used.
    """

    record: ledger_pb2.AssetRecord | None
    proofs: Proofs | None
    epoch: int
    grace: int
    trust_score: int
    problem: Problem | None = None
    proving: str | None = None
    serving: str | None = None


def proofs_of(refs: proofs_pb2.TicketRefs, tickets: list[proofs_pb2.Ticket]) -> Proofs:
    """`tickets`: those of space, work and time behind `refs`."""
    return Proofs(
        epoch=min(ticket.epoch for ticket in tickets),
        space=refs.space,
        stake=refs.stake,
        work=refs.work,
        time=refs.time,
        proven_ms=max(ticket.issued_ms for ticket in tickets),
    )


def asset_body(asset: NodeAsset, node_name: str, owner: Object | None) -> Object:
    """The Asset without sharing, which is the owner's; `owner`: ownerReference of the Node."""
    metadata: Object = {
        "name": asset.name,
        "labels": {NODE_LABEL: node_label(node_name), TYPE_LABEL: str(asset.hardware.kind)},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    spec = {"type": str(asset.hardware.kind), "nodeName": node_name, "hardwareID": asset.hardware.hardware_id}
    return {"metadata": metadata, "spec": spec}


def with_sharing(body: Object, privacy_level: str) -> Object:
    """The body for creation: the one time that the agent says how an Asset is shared."""
    return {**body, "spec": {**body["spec"], "sharing": {"privacyLevel": privacy_level}}}


def asset_status(asset: NodeAsset, ledger: Ledger, generation: int, present: Object, now: datetime) -> Object:
    """The whole status; `present` is what the API shows, for the times of unchanged conditions."""
    kind = str(asset.hardware.kind)
    resource = RESOURCE_OF_TYPE[kind]
    record = ledger.record
    registered = record is not None and not record.retired
    capacity = record.registration.capacity if record is not None and registered else asset.hardware.capacity
    reserved = record.reserved if record is not None and registered else 0
    amounts = {"capacity": capacity, "allocated": reserved, "free": max(0, capacity - reserved)}
    wanted = asset_conditions(asset, ledger)
    status: Object = {
        "observedGeneration": generation,
        "assetID": asset.asset_id.hex(),
        "trustScore": ledger.trust_score // 100,
        kind: _overlay(asset.hardware.detail, asset.hardware.readings),
        "conditions": conditions.merge(present.get("conditions") or [], wanted, generation, now),
        **{name: {resource: quantities.render(resource, amount)} for name, amount in amounts.items()},
    }
    if asset.hardware.attributes:
        status["attributes"] = dict(asset.hardware.attributes)
    if record is not None and registered:
        status["address"] = str(IPv6Address(record.registration.address))
        status["revision"] = record.revision
    if ledger.proofs is not None:
        status["proofs"] = _proofs(ledger.proofs)
    return status


def asset_conditions(asset: NodeAsset, ledger: Ledger) -> list[Condition]:
    """Registered, Proven, Ready, in this order."""
    registered, proven = _registered(asset, ledger), _proven(ledger)
    return [registered, proven, _ready(asset, ledger, registered, proven)]


def gone_status(record: ledger_pb2.AssetRecord, generation: int, present: Object, now: datetime) -> Object:
    """Status of an asset whose hardware vanished: what was shown, with the ledger's figures and the reason."""
    resource = RESOURCE_OF_TYPE[ASSET_TYPE_NAMES[record.registration.type]]
    amounts = {"capacity": record.registration.capacity, "allocated": record.reserved, "free": 0}
    wanted = gone_conditions(record)
    return {
        **present,
        "observedGeneration": generation,
        "revision": record.revision,
        "conditions": conditions.merge(present.get("conditions") or [], wanted, generation, now),
        **{name: {resource: quantities.render(resource, amount)} for name, amount in amounts.items()},
    }


def same_body(shown: Object, wanted: Object) -> bool:
    """Whether the API shows everything that `wanted` (of asset_body) says; it may show more."""
    metadata, asked = shown["metadata"], wanted["metadata"]
    labels = metadata.get("labels") or {}
    owners = {owner["uid"] for owner in metadata.get("ownerReferences") or ()}
    return (
        all(labels.get(name) == value for name, value in asked["labels"].items())
        and all(owner["uid"] in owners for owner in asked.get("ownerReferences", ()))
        and all(shown["spec"].get(name) == value for name, value in wanted["spec"].items())
    )


def gone_conditions(record: ledger_pb2.AssetRecord) -> list[Condition]:
    """Of an asset whose hardware vanished while something is still reserved on it."""
    message = (
        "the hardware is gone but Allocations still hold some of it: plug it in again, or release them; "
        "then the Asset goes away"
    )
    return [
        Condition("Registered", "True", "Registered", f"at revision {record.revision}"),
        Condition("Ready", "False", "HardwareGone", message),
    ]


def differs(shown: Object, wanted: Object, epoch: int, grace: int) -> bool:
    """Whether `wanted` says anything new that deserves a write."""
    if _proofs_outdated(shown.get("proofs"), wanted.get("proofs"), epoch, grace):
        return True
    return _stable(shown) != _stable(wanted)


def _registered(asset: NodeAsset, ledger: Ledger) -> Condition:
    record = ledger.record
    if record is not None and not record.retired:
        if ledger.problem is not None:
            message = f"the ledger holds an older state: {ledger.problem.message}"
            return Condition("Registered", "True", ledger.problem.reason, message)
        return Condition("Registered", "True", "Registered", "")
    if asset.hardware.capacity == 0:
        return Condition("Registered", "False", "NothingToGive", _nothing(asset))
    if ledger.problem is not None:
        return Condition("Registered", "False", ledger.problem.reason, ledger.problem.message)
    return Condition("Registered", "False", "Pending", "waits for its first tickets and its registration")


def _proven(ledger: Ledger) -> Condition:
    if ledger.proofs is None:
        message = ledger.proving or "the device wins its work ticket in the next epoch"
        return Condition("Proven", "False", "WaitingForTickets", message)
    if not ledger.proofs.fresh(ledger.epoch, ledger.grace):
        message = ledger.proving or "the device's newest work ticket is past its grace"
        return Condition("Proven", "False", "TicketsStale", f"{message}; see the log of this node's hypermesh-agent")
    return Condition("Proven", "True", "TicketsFresh", "")


def _ready(asset: NodeAsset, ledger: Ledger, registered: Condition, proven: Condition) -> Condition:
    for needed in (registered, proven):
        if needed.status != "True":
            return Condition("Ready", "False", needed.reason, needed.message)
    if ledger.record is not None and ledger.record.registration.sharing.paused:
        return Condition("Ready", "False", "Paused", "its owner paused it: set spec.sharing.paused to false")
    health = asset.hardware.detail.get("health", "Healthy")
    if health != "Healthy":
        return Condition("Ready", "False", "HardwareUnhealthy", str(health))
    if ledger.serving is not None:
        message = f"proxy addresses of its node can't be used: {ledger.serving}"
        return Condition("Ready", "False", "ProxyUnavailable", message)
    return Condition("Ready", "True", "Ready", "")


def _nothing(asset: NodeAsset) -> str:
    if asset.hardware.kind == "storage":
        return "nothing of this disk is given: the pool directory lies on another one, or has no room left"
    return "the owner's reserve takes all of it: lower the reserve in the agent's settings"


def _proofs(proofs: Proofs) -> Object:
    return {
        "epoch": proofs.epoch,
        "space": proofs.space.hex(),
        "stake": proofs.stake.hex(),
        "work": proofs.work.hex(),
        "time": proofs.time.hex(),
        "provenTime": conditions.timestamp(conditions.from_milliseconds(proofs.proven_ms)),
    }


def _proofs_outdated(shown: Object | None, wanted: Object | None, epoch: int, grace: int) -> bool:
    if shown is None or wanted is None:
        return shown is not wanted
    return bool(shown["epoch"] + grace < epoch and shown["epoch"] != wanted["epoch"])


def _overlay(detail: Mapping[str, Any], readings: Mapping[str, Any]) -> Object:
    """Readings over detail; objects are joined, everything else replaced."""
    merged = copy.deepcopy(dict(detail))
    for key, value in readings.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _stable(status: Object) -> Object:
    """The status without what moves by itself: tickets, times of conditions, readings."""
    rest = {key: value for key, value in status.items() if key != "proofs"}
    rest["conditions"] = [
        {key: value for key, value in condition.items() if key != _SINCE}
        for condition in status.get("conditions") or ()
    ]
    if isinstance(cpu := rest.get("cpu"), dict):
        frequency = {key: value for key, value in cpu.get("frequency", {}).items() if key != "currentMHz"}
        rest["cpu"] = {**cpu, "frequency": frequency}
    if isinstance(memory := rest.get("memory"), dict):
        pages = [{**page, "free": None} for page in memory.get("hugePages") or ()]
        rest["memory"] = {**memory, "hugePages": pages, "swapFree": None}
    return rest
