"""A node, some hardware of it and what the ledger holds, for the tests of plans and views."""

from __future__ import annotations

from ipaddress import IPv6Network

from hypermesh.falcon import KeyPair
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.directory import NodeAsset, identified
from hypermesh_agent.hardware import Hardware, Kind
from hypermesh_agent.identity import NodeIdentity
from hypermesh_agent.registration import plan, sharing_of

KEY = bytes(range(32))
NODE = NodeIdentity(
    name="node1",
    ip="::1",
    keypair=KeyPair(b"", b""),
    key_id=KEY,
    certificate=trust_pb2.Certificate(),
    federation=b"\x01" * 5,
    cluster=1,
    counter=0,
    cluster_uid="uid",
    prefix=IPv6Network("fd01:0101:0101:1::/88"),
)
SHARED = sharing_of({"sharing": {"privacyLevel": "Public", "pricePerHour": "0.5"}})
CPU = Hardware(Kind.CPU, "m:numa0", 8000, 8000)
DISK = Hardware(Kind.STORAGE, "serial:1", 1000, 400)
IDLE_DISK = Hardware(Kind.STORAGE, "serial:2", 1000, 0)


def assets(*hardware: Hardware) -> list[NodeAsset]:
    return identified(hardware, "node1", KEY)


def record(
    asset: NodeAsset, *, reserved: int = 0, retired: bool = False, capacity: int | None = None
) -> ledger_pb2.AssetRecord:
    (deed,) = plan(NODE, [asset], {}, {asset.asset_id: SHARED}, {})
    assert isinstance(deed.operation, ledger_pb2.RegisterAsset)
    if capacity is not None:
        deed.operation.capacity = capacity
    return ledger_pb2.AssetRecord(
        registration=deed.operation, node=KEY, revision=3, reserved=reserved, retired=retired, height=5
    )
