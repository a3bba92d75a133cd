"""Values that the operator's decisions rest on, ready to be bent by each test."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypermesh.resources import FINALIZER, AllocationSpec
from hypermesh.v1 import ledger_pb2
from hypermesh_operator.objects import Allocation, Grant, Mapping
from hypermesh_operator.policies.model import Candidate, Offer, Request

GI = 1 << 30
NOW = datetime(2026, 11, 22, 18, 0, 0, tzinfo=UTC)
UID = "3f2a9c01-0000-4000-8000-000000000001"
ID = bytes(range(32))
PRIVATE, PUBLIC = ledger_pb2.PRIVACY_LEVEL_PRIVATE, ledger_pb2.PRIVACY_LEVEL_PUBLIC
HERE, ELSEWHERE = "cluster-here", "cluster-elsewhere"

SPEC = AllocationSpec(type="memory", amount=GI, privacy_level=PRIVATE, lease_seconds=3600)
REQUEST = Request(SPEC, namespace="team-a", cluster_uid=HERE)
CANDIDATE = Candidate(
    asset_id=b"\1" * 32,
    name="node-1-memory-01010101",
    type="memory",
    hardware_id="mem-0",
    node=b"\2" * 32,
    node_name="node-1",
    work_device=b"\3" * 32,
    capacity=8 * GI,
    reserved=0,
    paused=False,
    privacy_level=PRIVATE,
    owner_namespaces=frozenset(),
    price=0,
    trust=5000,
    cluster_uid=HERE,
)


def request(**changes: Any) -> Request:
    """REQUEST with another spec; `namespace` is the request's."""
    namespace = changes.pop("namespace", REQUEST.namespace)
    return Request(replace(SPEC, **changes), namespace, HERE)


def offer(free: int | None = None, proven: bool = True, **changes: Any) -> Offer:
    """An offer of CANDIDATE with changes; free is all of it unless told."""
    item = replace(CANDIDATE, **changes)
    return Offer(item, item.capacity - item.reserved if free is None else free, proven)


def allocation(**changes: Any) -> Allocation:
    """An Allocation resource nobody has touched yet; `finalized` puts our finalizer on it."""
    if "finalized" in changes:
        changes["finalizers"] = (FINALIZER,) if changes.pop("finalized") else ()
    fresh = Allocation(
        uid=UID,
        namespace="team-a",
        name="scratch",
        generation=1,
        version=7,
        created="2026-11-22T17:59:59Z",
        deleted_at=None,
        finalizers=(),
        spec=SPEC,
        status={},
        allocation_id=ID,
    )
    return replace(fresh, **changes)


GRANT = Grant(
    allocation_id=ID,
    active=True,
    expired=False,
    signer=b"\4" * 32,
    namespace="team-a",
    name="scratch",
    uid=UID,
    asset_id=CANDIDATE.asset_id,
    node=CANDIDATE.node,
    amount=GI,
    address="fd12:3456:789a:1::1",
    port=7443,
    capability_hash=b"\5" * 32,
    expires_ms=int(NOW.timestamp() * 1000) + 3_600_000,
    chain_id="hypermesh-0123456789-00000001",
    height=42,
    tx_hash=b"\6" * 32,
)
MAPPING = Mapping(
    uid="m", version=9, owner=UID, transaction=GRANT.tx_hash.hex(), programmed=False, reason="", message=""
)
