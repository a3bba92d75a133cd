"""Typed views of the Kubernetes objects this process reads, and of the ledger's record; pure.

    watch event body -> Allocation | Mapping,  AllocationRecord -> Grant

They hold what decisions need and no more: with thousands of objects, whole bodies would be most of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any

from hypermesh import operations
from hypermesh.conditions import find
from hypermesh.resources import FINALIZER, AllocationSpec, allocation_spec
from hypermesh.v1 import ledger_pb2

Body = Map[str, Any]


@dataclass(slots=True)
class Allocation:
    """One Allocation resource. deleted_at is Unix seconds, None while nobody deletes it."""

    uid: str
    namespace: str
    name: str
    generation: int
    version: int
    created: str
    deleted_at: float | None
    finalizers: tuple[str, ...]
    spec: AllocationSpec
    status: dict[str, Any]
    allocation_id: bytes

    @property
    def reference(self) -> str:
        """How messages name it."""
        return f"{self.namespace}/{self.name}"

    @property
    def finalized(self) -> bool:
        """Whether our finalizer is on it."""
        return FINALIZER in self.finalizers

    @property
    def metadata(self) -> dict[str, Any]:
        """What an event or a patch needs to name exactly this object."""
        return {"name": self.name, "namespace": self.namespace, "uid": self.uid}


def allocation(body: Body, cluster_uid: str) -> Allocation:
    """Of an Allocation body as the API server sends it."""
    metadata = body["metadata"]
    deleted = metadata.get("deletionTimestamp")
    return Allocation(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 1)),
        version=int(metadata["resourceVersion"]),
        created=metadata.get("creationTimestamp") or "",
        deleted_at=datetime.fromisoformat(deleted).timestamp() if deleted else None,
        finalizers=tuple(metadata.get("finalizers") or ()),
        spec=allocation_spec(body["spec"]),
        status=dict(body.get("status") or {}),
        allocation_id=operations.allocation_id(cluster_uid, metadata["uid"]),
    )


@dataclass(frozen=True, slots=True)
class Mapping:
    """One ProxyMapping: whose it is, hash of the transaction that it shows (hex), and what the node says of it."""

    uid: str
    version: int
    owner: str
    transaction: str
    programmed: bool
    reason: str
    message: str

    def shows(self, grant: Grant, uid: str) -> bool:
        """Whether it is the one of this very grant, to the Allocation with that uid."""
        return self.owner == uid and self.transaction == grant.tx_hash.hex()


def mapping(body: Body) -> Mapping:
    """Of a ProxyMapping body; owner is the uid of the Allocation in its ownerReferences."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    condition = find((body.get("status") or {}).get("conditions") or (), "Programmed") or {}
    owners = [reference["uid"] for reference in metadata.get("ownerReferences") or ()]
    return Mapping(
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=owners[0] if owners else "",
        transaction=str(spec.get("transactionHash", "")),
        programmed=condition.get("status") == "True",
        reason=str(condition.get("reason", "")),
        message=str(condition.get("message", "")),
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """What the ledger recorded for an Allocation. amount in base units; active is False once released or expired."""

    allocation_id: bytes
    active: bool
    expired: bool
    signer: bytes
    namespace: str
    name: str
    uid: str
    asset_id: bytes
    node: bytes
    amount: int
    address: str
    port: int
    capability_hash: bytes
    expires_ms: int
    chain_id: str
    height: int
    tx_hash: bytes


def grant(record: ledger_pb2.AllocationRecord) -> Grant:
    """Of a committed record; its envelope was checked by the ledger, so that it only needs parsing."""
    envelope = ledger_pb2.Envelope.FromString(record.envelope)
    operation = ledger_pb2.Operation.FromString(envelope.operation)
    allocate = operation.allocate
    return Grant(
        allocation_id=record.allocation_id,
        active=record.state == ledger_pb2.ALLOCATION_STATE_ACTIVE,
        expired=record.state == ledger_pb2.ALLOCATION_STATE_EXPIRED,
        signer=envelope.signer,
        namespace=allocate.namespace,
        name=allocate.name,
        uid=allocate.uid,
        asset_id=allocate.asset_id,
        node=record.node,
        amount=allocate.amount,
        address=str(IPv6Address(allocate.address)),
        port=allocate.port,
        capability_hash=allocate.capability_hash,
        expires_ms=record.expires_ms,
        chain_id=operation.chain_id,
        height=record.height,
        tx_hash=record.tx_hash,
    )
