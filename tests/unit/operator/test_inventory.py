"""What of an Allocation is remembered, and whose Secrets are looked after."""

from __future__ import annotations

from typing import Any

from hypermesh import operations
from hypermesh.v1 import ledger_pb2
from hypermesh_operator.inventory import Inventory

from .worlds import HERE, UID

ACTIVE, RELEASED = ledger_pb2.ALLOCATION_STATE_ACTIVE, ledger_pb2.ALLOCATION_STATE_RELEASED


def body(uid: str = UID) -> dict[str, Any]:
    """An Allocation as the API server sends it."""
    metadata = {"uid": uid, "namespace": "team-a", "name": uid, "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"type": "memory", "resources": {"memory": "1Gi"}}}


def record(uid: str, state: ledger_pb2.AllocationState) -> ledger_pb2.AllocationRecord:
    """The ledger's record of it."""
    allocation_id = operations.allocation_id(HERE, uid)
    operation = ledger_pb2.Operation()
    operation.allocate.CopyFrom(ledger_pb2.Allocate(allocation_id=allocation_id, address=bytes(16), uid=uid))
    envelope = ledger_pb2.Envelope(operation=operation.SerializeToString())
    return ledger_pb2.AllocationRecord(allocation_id=allocation_id, state=state, envelope=envelope.SerializeToString())


def test_only_what_is_granted_is_doubted_the_longest_unpublished_first() -> None:
    inventory = Inventory(HERE)
    for uid in ("pending", "first", "second", "released", "ending"):
        inventory.see(body(uid))
    for uid, state in (("first", ACTIVE), ("second", ACTIVE), ("released", RELEASED), ("ending", ACTIVE)):
        allocation = inventory.allocation(uid)
        assert allocation is not None
        inventory.grant(allocation, record(uid, state))
    inventory.published("first", "secret")
    assert inventory.doubt(5) == ["second", "ending", "first"]
    ending = inventory.allocation("ending")
    assert ending is not None
    inventory.grant(ending, None)
    assert inventory.doubt(1) == ["second"]
    assert inventory.doubt(5) == ["first", "second"]


def test_what_is_lost_while_it_was_being_published_leaves_nothing_behind() -> None:
    inventory = Inventory(HERE)
    inventory.see(body())
    inventory.lose(UID)
    inventory.published(UID, "secret")
    assert inventory.secret(UID) is None
    assert inventory.published_s(UID) == float("inf")
    assert inventory.doubt(1) == []
