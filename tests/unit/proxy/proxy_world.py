"""A federation in memory: real keys and certificates, really signed allocations, as a node's mirror holds them."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

from hypermesh import addressing, certificates, falcon, operations
from hypermesh.addressing import AddressType
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_agent.proxy.verification import Standpoint
from hypermesh_clients.mirror import Mirror, View

CHAIN = "hypermesh-test"
CLUSTER_UID = "6a1f0c52-0000-4000-8000-000000000001"
DAY_S = 86_400


@dataclass(frozen=True)
class Member:
    """A key with its certificate and ledger record."""

    keypair: falcon.KeyPair = field(repr=False)
    record: ledger_pb2.NodeRecord

    @property
    def key_id(self) -> bytes:
        return self.record.key_id


def issue(
    root: falcon.KeyPair, public: bytes, role: trust_pb2.Role, subject: str, **fields: Any
) -> trust_pb2.Certificate:
    now = int(time.time())
    body = {
        "version": 1,
        "algorithm": trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
        "subject_key": public,
        "role": role,
        "subject": subject,
        "federation": addressing.federation_id(root.public),
        "cluster": 1,
        "cluster_uid": CLUSTER_UID,
        "not_before": now - DAY_S,
        "not_after": now + DAY_S,
        "issuer": falcon.key_id(root.public),
        "serial": secrets.token_bytes(16),
    }
    return certificates.issue(root.secret, trust_pb2.CertificateBody(**(body | fields)))


def member(root: falcon.KeyPair, role: trust_pb2.Role, subject: str, **fields: Any) -> Member:
    keypair = falcon.generate()
    certificate = issue(root, keypair.public, role, subject, **fields)
    return Member(keypair, ledger_pb2.NodeRecord(key_id=keypair.key_id(), certificate=certificate, trust_score=5000))


@dataclass(frozen=True)
class Signed:
    """An allocation with the token that its tenant holds."""

    record: ledger_pb2.AllocationRecord
    token: str

    @property
    def operation(self) -> ledger_pb2.Allocate:
        return operations.decode(self.record.envelope).operation.allocate


@dataclass
class World:
    """One node `node-1` with a memory, a storage and a CPU asset, one operator, and the records of all of them."""

    root: falcon.KeyPair
    node: Member
    operator: Member
    here: Standpoint
    nodes: dict[bytes, ledger_pb2.NodeRecord]
    assets: dict[bytes, ledger_pb2.AssetRecord]
    by_type: dict[int, ledger_pb2.AssetRecord]

    def asset(self, type_: int) -> ledger_pb2.AssetRecord:
        return self.by_type[type_]

    def address(self, type_: int, counter: int) -> bytes:
        """Of an allocation on the asset of that type."""
        here, hardware_id = self.here, self.asset(type_).registration.hardware_id
        kind = AddressType.of_asset(type_)
        return addressing.asset_address(
            here.federation, here.cluster, here.key_id, here.counter, kind, hardware_id, counter
        ).packed

    def operation(self, type_: int = ledger_pb2.ASSET_TYPE_MEMORY, amount: int = 1 << 20) -> ledger_pb2.Operation:
        """A right Allocate, to be spoilt by the test."""
        allocation_id = secrets.token_bytes(32)
        counter = addressing.allocation_counter(allocation_id)
        allocate = ledger_pb2.Allocate(
            allocation_id=allocation_id,
            namespace="team-a",
            name="scratch",
            uid="uid",
            asset_id=self.asset(type_).registration.asset_id,
            amount=amount,
            privacy_level=ledger_pb2.PRIVACY_LEVEL_PRIVATE,
            lease_seconds=3600,
            address=self.address(type_, counter),
            address_counter=counter,
            port=7443,
        )
        until = time.time_ns() // 1_000_000 + 60_000
        return ledger_pb2.Operation(chain_id=CHAIN, valid_until_ms=until, allocate=allocate)

    def signed(self, operation: ledger_pb2.Operation, signer: Member | None = None, **record: Any) -> Signed:
        """Signed by the operator (or `signer`) and committed now; fields of the record may be overruled."""
        token = secrets.token_urlsafe(32)
        if operation.HasField("allocate") and not operation.allocate.capability_hash:
            operation.allocate.capability_hash = hashlib.sha256(token.encode()).digest()
        keypair = (signer or self.operator).keypair
        tickets = proofs_pb2.TicketRefs(space=b"s" * 32, stake=b"k" * 32, work=b"w" * 32, time=b"t" * 32)
        envelope = operations.build(operation, keypair.public, keypair.secret, tickets)
        now = time.time_ns() // 1_000_000
        fields: dict[str, Any] = {
            "allocation_id": operation.allocate.allocation_id or operation.release.allocation_id,
            "state": ledger_pb2.ALLOCATION_STATE_ACTIVE,
            "node": self.here.key_id,
            "granted_ms": now,
            "expires_ms": now + operation.allocate.lease_seconds * 1000,
            "height": 7,
            "tx_hash": operations.tx_hash(envelope),
            "envelope": envelope,
        }
        return Signed(ledger_pb2.AllocationRecord(**(fields | record)), token)

    def allocation(self, type_: int = ledger_pb2.ASSET_TYPE_MEMORY, amount: int = 1 << 20, **record: Any) -> Signed:
        return self.signed(self.operation(type_, amount), **record)

    def seen_from(self, **changes: Any) -> Standpoint:
        """The node's standpoint with something else."""
        return replace(self.here, **changes)


class FedMirror(Mirror):
    """The real mirror; changes come from the test instead of from a stream."""

    def __init__(self, world: World) -> None:
        super().__init__(cast(Any, None))
        genesis = ledger_pb2.Genesis(root_public_key=world.root.public)
        status = ledger_pb2.StatusResponse(chain_id=world.here.chain_id, height=10, genesis=genesis)
        self.feed(ledger_pb2.Change(status=status))
        for node in world.nodes.values():
            self.feed(ledger_pb2.Change(node=node))
        for asset in world.assets.values():
            self.feed(ledger_pb2.Change(asset=asset))
        self.synced.set()

    def feed(self, *changes: ledger_pb2.Change) -> None:
        for change in changes:
            self._view.apply(change)
            self._tell(change)
        self._wake()

    def begin_anew(self, chain_id: str, *signed: Signed) -> None:
        """What follows a connection to a ledger that lost its volume: the whole copy of another chain."""
        status = ledger_pb2.StatusResponse(chain_id=chain_id, height=1, genesis=self.genesis)
        changes = [ledger_pb2.Change(status=status)]
        changes += [ledger_pb2.Change(node=node) for node in self.nodes.values()]
        changes += [ledger_pb2.Change(asset=asset) for asset in self.assets.values()]
        changes += [ledger_pb2.Change(allocation=item.record) for item in signed]
        fresh = View()
        for change in changes:
            fresh.apply(change)
        self._swap(fresh, changes)
        self._wake()

    def commit(self, *signed: Signed) -> None:
        """Records of one block."""
        self.feed(*(ledger_pb2.Change(allocation=item.record) for item in signed))

    def end(self, signed: Signed, state: int = ledger_pb2.ALLOCATION_STATE_RELEASED) -> None:
        record = ledger_pb2.AllocationRecord()
        record.CopyFrom(signed.record)
        record.state = cast(Any, state)
        record.height += 1
        self.feed(ledger_pb2.Change(allocation=record))


def make_world() -> World:
    root = falcon.generate()
    node = member(root, trust_pb2.ROLE_NODE, "node-1")
    operator = member(root, trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
    federation = addressing.federation_id(root.public)
    here = Standpoint(
        chain_id=CHAIN,
        key_id=node.key_id,
        prefix=addressing.node_prefix(federation, 1, node.key_id, 0),
        federation=federation,
        cluster=1,
        counter=0,
        cluster_uid=CLUSTER_UID,
        root_public=root.public,
    )
    by_type = {}
    for type_, hardware, capacity in (
        (ledger_pb2.ASSET_TYPE_MEMORY, "numa-0", 8 << 30),
        (ledger_pb2.ASSET_TYPE_STORAGE, "pool-0", 100 << 30),
        (ledger_pb2.ASSET_TYPE_CPU, "socket-0", 8000),
        (ledger_pb2.ASSET_TYPE_GPU, "gpu-0", 24 << 30),
    ):
        registration = ledger_pb2.RegisterAsset(
            asset_id=operations.asset_id(node.key_id, type_, hardware),
            name=f"node-1-{hardware}",
            type=type_,
            hardware_id=hardware,
            capacity=capacity,
            sharing=ledger_pb2.Sharing(privacy_level=ledger_pb2.PRIVACY_LEVEL_PRIVATE),
        )
        by_type[type_] = ledger_pb2.AssetRecord(registration=registration, node=node.key_id, revision=1, height=3)
    assets = {record.registration.asset_id: record for record in by_type.values()}
    nodes = {node.key_id: node.record, operator.key_id: operator.record}
    return World(root, node, operator, here, nodes, assets, by_type)
