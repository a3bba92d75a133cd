"""A chain with as many assets as wanted, made by the ledger's own rules in one process, without consensus and network.

Nodes enrol and register their first asset by signed operations. Their tickets are put into the state by the ledger's
`win`, as if proven, and their other assets by its `register_asset`: the state is that of signed operations, of which
only the signatures and the encoding, which leave nothing there, are saved. Committed to LMDB as the application does
it, 20 nodes in a block. Time stands still, so that no ticket gets old.
"""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.builders import Member, TrustRoot, allocation, member, registration

from hypermesh import operations
from hypermesh.proofs.parameters import DEMO
from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Verify, verify_now
from hypermesh_ledger.execution import Block, execute
from hypermesh_ledger.execution import registration as registration_rules
from hypermesh_ledger.execution import tickets as ticket_rules
from hypermesh_ledger.execution.context import Context, read, signer_of
from hypermesh_ledger.genesis import app_state, initial_state, make_genesis
from hypermesh_ledger.state import Fork, Reader, Writes
from hypermesh_ledger.store import Store

CHAIN: Final = "hypermesh-state-bench"
EACH: Final = 1_000
"""Assets of a node."""
NODES_IN_A_BLOCK: Final = 20
CPU, MEMORY = ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_MEMORY
SPACE, WORK, TIME = proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_WORK, proofs_pb2.PROOF_KIND_TIME


class Chain:
    """A directory with a state, and the keys of its nodes and of one operator. Opened only while it is built."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ms = time.time_ns() // 1_000_000
        self.nodes: list[Member] = []
        self._root = TrustRoot()
        self._genesis = make_genesis(self._root.keypair.public, DEMO)
        with_genesis = initial_state(CHAIN, json.dumps(app_state(self._genesis)).encode())
        store = Store(directory)
        write(store, self.now_ms, dict(with_genesis))
        fork = Fork(store.snapshot)
        (self._operator,) = self._enrol(fork, 2, trust_pb2.ROLE_OPERATOR, ["operator"])
        self._epoch = read(fork, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()
        write(store, self.now_ms, fork.writes)
        store.close()

    def grow(self, nodes: int) -> None:
        """Until there are so many nodes."""
        store = Store(self.directory)
        while len(self.nodes) < nodes:
            fork = Fork(store.snapshot)
            self._add_nodes(fork, store.head.height + 1, min(NODES_IN_A_BLOCK, nodes - len(self.nodes)))
            write(store, self.now_ms, fork.writes)
        store.close()

    def allocates(self, count: int, name: str, chance: random.Random) -> Iterator[bytes]:
        """Each signed by itself, of assets anywhere."""
        for each in range(count):
            number = chance.randrange(len(self.nodes))
            node = self.nodes[number]
            asked = allocation(node, self._asset(node, chance.randrange(EACH)), f"{name}-{each}", 1)
            yield self._signed(self._operator, self._refs(self._operator, node), allocate=asked)

    def _add_nodes(self, fork: Fork, height: int, count: int) -> None:
        first = len(self.nodes)
        new = self._enrol(
            fork, height, trust_pb2.ROLE_NODE, [f"node-{number}" for number in range(first, first + count)]
        )
        signed = [self._signed(node, self._refs(node, node), register_asset=self._asset(node, 0)) for node in new]
        contexts = [self._context(fork, height, tx) for tx in signed]
        for node, context in zip(new, contexts, strict=True):
            for kind, subject in ((SPACE, node.key_id), (TIME, node.key_id), (WORK, node.asset_id(CPU, "cpu"))):
                ticket_rules.win(context, kind, node.key_id, subject, self._epoch.number, _ticket(kind, node.key_id))
        self._execute(fork, height, signed)
        for node, context in zip(new, contexts, strict=True):
            signer = signer_of(fork, node.key_id)
            assert signer is not None
            for number in range(1, EACH):
                registration_rules.register_asset(context, signer, self._asset(node, number))
        self.nodes += new

    def _context(self, fork: Fork, height: int, tx: bytes) -> Context:
        fixed = (height, self.now_ms, bytes(32), CHAIN, self._genesis, self._epoch, verify_now)
        return Context(fork, *fixed, operations.decode(tx))

    def _enrol(self, fork: Fork, height: int, role: trust_pb2.Role, subjects: Sequence[str]) -> list[Member]:
        new = [member(self._root, role, subject, not_before=self.now_ms // 1000 - 600) for subject in subjects]
        asked = [ledger_pb2.EnrolNode(certificate=each.certificate) for each in new]
        self._execute(
            fork, height, [self._signed(each, None, enrol_node=it) for each, it in zip(new, asked, strict=True)]
        )
        return new

    def _execute(self, fork: Fork, height: int, txs: Sequence[bytes]) -> None:
        fork.writes.update(executed(fork, height, self.now_ms, txs, verify_now))

    def _signed(self, signer: Member, refs: proofs_pb2.TicketRefs | None, **kind: object) -> bytes:
        valid_until = self.now_ms + 300_000
        operation = ledger_pb2.Operation(chain_id=CHAIN, valid_until_ms=valid_until, **kind)  # type: ignore[arg-type]
        return operations.build(operation, signer.keypair.public, signer.keypair.secret, refs)

    def _refs(self, signer: Member, node: Member) -> proofs_pb2.TicketRefs:
        return proofs_pb2.TicketRefs(
            space=_ticket(SPACE, node.key_id),
            work=_ticket(WORK, node.key_id),
            time=_ticket(TIME, node.key_id),
            stake=stake_ticket_hash(signer.key_id, signer.body.role, signer.certificate, self._epoch.number),
        )

    def _asset(self, node: Member, number: int) -> ledger_pb2.RegisterAsset:
        """Address collisions of 36 bits are left to chance: none among a node's few thousand."""
        return registration(node, MEMORY, f"memory-{number}", 1 << 40, work_device=node.asset_id(CPU, "cpu"))


def executed(state: Reader, height: int, now_ms: int, txs: Sequence[bytes], verify: Verify) -> Writes:
    """What a block of these writes; none may be refused."""
    outcome = execute(state, Block(height, now_ms, bytes(32), txs), verify)
    for result in outcome.results:
        if result.reason:
            raise SystemExit(f"refused: {result.reason}: {result.message}")
    return outcome.writes


def write(store: Store, now_ms: int, writes: Writes) -> None:
    """Commit a block."""
    prepared = store.prepare(store.head.height + 1, now_ms, writes)
    store.commit(prepared)
    store.advance(prepared)


@functools.cache
def _ticket(kind: int, node: bytes) -> bytes:
    return operations.tx_hash(bytes([kind]) + node)
