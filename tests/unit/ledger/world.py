"""A state machine in memory, one block at a time, with an operator, a node and assets that are all in order.

Tickets are put into the state by the ledger's own `win`, as if proven: what proofs must show is test_proving's matter.
"""

from __future__ import annotations

import time
from typing import Any

from hypermesh import operations
from hypermesh.proofs.parameters import DEMO
from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, Result, behaviour, execute
from hypermesh_ledger.execution import tickets as ticket_rules
from hypermesh_ledger.execution.context import Context, read
from hypermesh_ledger.genesis import app_state, initial_state, make_genesis
from hypermesh_ledger.state import Fork, Memory

from ...builders import Member, TrustRoot, member, registration

CHAIN = "hypermesh-test"
CPU, MEMORY = ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_MEMORY
STORAGE = ledger_pb2.ASSET_TYPE_STORAGE
SPACE, WORK, TIME = proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_WORK, proofs_pb2.PROOF_KIND_TIME
Parts = dict[str, Any]


class World:
    """state, height and now_ms move with every block; `blocks` keeps all of them for replays."""

    def __init__(self, root: TrustRoot, params: proofs_pb2.ProofParameters = DEMO) -> None:
        import json

        genesis = make_genesis(root.keypair.public, params)
        self.genesis = genesis
        self.root = root
        self.state = Memory(initial_state(CHAIN, json.dumps(app_state(genesis)).encode()))
        self.height = 0
        self.now_ms = time.time_ns() // 1_000_000
        self.blocks: list[Block] = []
        self.block()

    # -- blocks ----------------------------------------------------------------------------------------------

    def block(self, *txs: bytes, after_ms: int = 10) -> list[Result]:
        """Execute and apply one block."""
        self.height += 1
        self.now_ms += after_ms
        block = Block(self.height, self.now_ms, operations.tx_hash(self.height.to_bytes(8, "big")), txs)
        outcome = execute(self.state, block, verify_now)
        self.state.write(outcome.writes)
        self.blocks.append(block)
        return outcome.results

    def do(self, tx: bytes) -> Result:
        """A block with one transaction."""
        return self.block(tx)[0]

    def reason(self, tx: bytes) -> Reason | None:
        """Why it is refused; the state must not change by a refused transaction."""
        before = dict(self.state.entries)
        result = self.do(tx)
        if result.reason is not None:
            changed = {
                k for k in before.keys() | self.state.entries.keys() if before.get(k) != self.state.entries.get(k)
            }
            assert not {k for k in changed if not k.startswith((b"epoch", b"beacon"))}, changed
            assert result.message
        return result.reason

    @property
    def epoch(self) -> ledger_pb2.Epoch:
        record = read(self.state, keys.EPOCH, ledger_pb2.Epoch)
        assert record is not None
        return record

    def next_epoch(self, skip: int = 0) -> None:
        """The block that begins the next epoch in time; with skip, as many epochs later."""
        after = (self.epoch.number + 1 + skip) * self.genesis.proofs.epoch_ms - self.now_ms
        self.block(after_ms=after)

    def score(self, node: Member) -> int:
        """What clients read."""
        record = read(self.state, keys.node(node.key_id), ledger_pb2.NodeRecord)
        assert record is not None
        return record.trust_score

    # -- transactions ----------------------------------------------------------------------------------------

    def operation(self, **parts: Any) -> ledger_pb2.Operation:
        """chain_id and valid_until_ms unless given, and one kind."""
        defaults: Parts = {"chain_id": CHAIN, "valid_until_ms": self.now_ms + 300_000}
        return ledger_pb2.Operation(**(defaults | parts))

    def tx(self, signer: Member, refs: proofs_pb2.TicketRefs | None = None, **parts: Any) -> bytes:
        """Signed."""
        return operations.build(self.operation(**parts), signer.keypair.public, signer.keypair.secret, refs)

    def refs(self, signer: Member, node: Member, device: bytes) -> proofs_pb2.TicketRefs:
        """The newest tickets, and the stake ticket of now."""
        return proofs_pb2.TicketRefs(
            space=self.newest(SPACE, node, node.key_id),
            stake=stake_ticket_hash(signer.key_id, signer.body.role, signer.certificate, self.epoch.number),
            work=self.newest(WORK, node, device),
            time=self.newest(TIME, node, node.key_id),
        )

    def newest(self, kind: int, node: Member, subject: bytes) -> bytes:
        """The hash of the newest ticket."""
        *_, (_, value) = self.state.scan(keys.tickets(kind, node.key_id, subject))
        return proofs_pb2.Ticket.FromString(value).hash

    # -- set-up ----------------------------------------------------------------------------------------------

    def enrol(self, role: trust_pb2.Role, subject: str, **terms: Any) -> Member:
        """Really enrolled."""
        new = member(self.root, role, subject, **terms)
        assert self.do(self.tx(new, enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))).reason is None
        return new

    def win(self, node: Member, *devices: bytes) -> None:
        """Tickets of the current epoch for the node and these devices."""
        fork, epoch = Fork(self.state), self.epoch
        envelope = self.tx(node, prove=ledger_pb2.Prove(epoch=epoch.number))
        decoded = operations.decode(envelope)
        context = Context(fork, self.height, self.now_ms, b"\0" * 32, CHAIN, self.genesis, epoch, verify_now, decoded)
        for kind, subject in ((SPACE, node.key_id), (TIME, node.key_id), *((WORK, device) for device in devices)):
            value = operations.tx_hash(bytes([kind]) + node.key_id + subject + epoch.number.to_bytes(8, "big"))
            ticket_rules.win(context, kind, node.key_id, subject, epoch.number, value)
        signer = context.node(node.key_id)
        assert signer is not None
        committed = [proofs_pb2.WorkCommitment(device=device) for device in devices]
        behaviour.proven(context, signer, epoch.number, ledger_pb2.WorkSeed(commitments=committed))
        self.state.write(fork.writes)

    def register(self, node: Member, asset: ledger_pb2.RegisterAsset) -> ledger_pb2.RegisterAsset:
        """Really registered."""
        refs = self.refs(node, node, asset.work_device)
        assert self.do(self.tx(node, refs, register_asset=asset)).reason is None
        return asset

    def asset(self, asset_id: bytes) -> ledger_pb2.AssetRecord:
        record = read(self.state, keys.asset(asset_id), ledger_pb2.AssetRecord)
        assert record is not None
        return record

    def allocation(self, allocation_id: bytes) -> ledger_pb2.AllocationRecord | None:
        return read(self.state, keys.allocation(allocation_id), ledger_pb2.AllocationRecord)


class Settled(World):
    """A world with `operator`, `node`, and its `cpu` asset of 100 millicores, tickets won."""

    def __init__(self, root: TrustRoot) -> None:
        super().__init__(root)
        self.operator = self.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
        self.node = self.enrol(trust_pb2.ROLE_NODE, "node-1")
        self.cpu_id = self.node.asset_id(CPU, "cpu-0")
        self.win(self.node, self.cpu_id)
        self.cpu = self.register(self.node, registration(self.node, CPU, "cpu-0", 100))

    def allocate(self, operation: ledger_pb2.Allocate, **changes: Any) -> bytes:
        """A transaction with the operator's correct tickets, fields changed as asked."""
        changed = ledger_pb2.Allocate()
        changed.CopyFrom(operation)
        for name, value in changes.items():
            setattr(changed, name, value)
        return self.tx(self.operator, self.refs(self.operator, self.node, self.cpu_id), allocate=changed)

    def release(self, allocation_id: bytes, signer: Member | None = None) -> bytes:
        who = signer or self.operator
        refs = self.refs(who, self.node, self.cpu_id)
        return self.tx(who, refs, release=ledger_pb2.Release(allocation_id=allocation_id))
