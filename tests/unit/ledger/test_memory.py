"""CommitMemory and ProveMemory with really filled memory, and the tickets that operations on memory must then name."""

from __future__ import annotations

import pytest

from hypermesh.proofs import fill, memory
from hypermesh.proofs.challenges import memory_key, memory_start
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.memory import MAX_MEMORIES

from ...builders import Member, TrustRoot, allocation, registration
from . import proofs
from .world import MEMORY, SPACE, Settled, World

SLAB = 1 << 20
ASKED = proofs_pb2.MemoryParameters(
    slab_bytes=SLAB, min_slabs=2, block_kib=256, passes=4, steps=1 << 10, samples=16, deadline_ms=10_000
)


def demanding() -> proofs_pb2.ProofParameters:
    params = proofs.small()
    params.memory.CopyFrom(ASKED)
    return params


class Filled:
    """The first slabs of one asset's memory, and the walks over them."""

    def __init__(self, node: bytes, asset: bytes, slabs: int = 2) -> None:
        self.asset, self.slabs = asset, slabs
        key, blocks = memory_key(node, asset, ASKED), slabs * SLAB >> 18
        self.room = b"".join(fill.block(key, number, 256, ASKED.passes) for number in range(blocks))
        self.states: list[bytes] = []

    def commit(self, world: World, node: Member) -> ledger_pb2.CommitMemory:
        start = memory_start(proofs.asked(world, node), self.asset, self.slabs)
        count = memory.labels(self.slabs, ASKED)
        self.states = memory.walk(start, lambda at: self.room[at * 64 : at * 64 + 64], count, ASKED.steps)
        root = memory.tree(self.states)[-1][0]
        commitment = proofs_pb2.MemoryCommitment(asset=self.asset, slabs=self.slabs, root=root)
        return ledger_pb2.CommitMemory(epoch=world.epoch.number, commitment=commitment, hardware_id="ram")

    def prove(self, world: World, node: Member) -> ledger_pb2.ProveMemory:
        seed = seed_of(world, node, self.asset)
        proof = memory.open_walk(self.states, seed.seed, seed.commitment, ASKED)
        return ledger_pb2.ProveMemory(epoch=seed.epoch, proof=proof)


def seed_of(world: World, node: Member, asset: bytes) -> ledger_pb2.MemorySeed:
    seed = read(world.state, keys.memory_seed(node.key_id, asset), ledger_pb2.MemorySeed)
    assert seed is not None
    return seed


class Remembering(Settled):
    """A chain that asks for memory; the node has the tickets of its CPU and plot, and filled the memory `ram`."""

    def __init__(self, root: TrustRoot) -> None:
        super().__init__(root, demanding())
        self.ram_id = self.node.asset_id(MEMORY, "ram")
        self.ram = registration(self.node, MEMORY, "ram", 4 * SLAB, work_device=self.cpu_id)
        self.filled = Filled(self.node.key_id, self.ram_id)
        self.next_epoch()

    def next_epoch(self) -> None:
        """To its very beginning, so that no deadline within it depends on when the test runs."""
        length = self.genesis.proofs.epoch_ms
        self.block(after_ms=length - self.now_ms % length)
        self.win(self.node, self.cpu_id)

    def commit(self, operation: ledger_pb2.CommitMemory | None = None, signer: Member | None = None) -> Reason | None:
        wanted = operation or self.filled.commit(self, self.node)
        return self.reason(self.tx(signer or self.node, commit_memory=wanted))

    def prove(self, operation: ledger_pb2.ProveMemory | None = None, signer: Member | None = None) -> Reason | None:
        wanted = operation or self.filled.prove(self, self.node)
        return self.reason(self.tx(signer or self.node, prove_memory=wanted))

    def on_ram(self, signer: Member, space: bytes) -> proofs_pb2.TicketRefs:
        """Tickets of an operation on the memory; space is the subject of its space ticket."""
        refs = self.refs(signer, self.node, self.cpu_id)
        refs.space = self.newest(SPACE, self.node, space)
        return refs

    def register_ram(self, space: bytes) -> Reason | None:
        return self.reason(self.tx(self.node, self.on_ram(self.node, space), register_asset=self.ram))

    def allocate_ram(self, amount: int, space: bytes, uid: str) -> Reason | None:
        operation = allocation(self.node, self.ram, uid, amount)
        return self.reason(self.tx(self.operator, self.on_ram(self.operator, space), allocate=operation))


@pytest.fixture
def world(root: TrustRoot) -> Remembering:
    return Remembering(root)


def test_filled_memory_wins_its_own_ticket_once(world: Remembering) -> None:
    assert world.commit() is None
    assert not seed_of(world, world.node, world.ram_id).proven
    assert world.prove() is None
    assert world.newest(SPACE, world.node, world.ram_id) != world.newest(SPACE, world.node, world.node.key_id)
    assert world.prove() is Reason.AlreadyProven


def test_memory_is_registered_and_allocated_by_its_own_ticket_only(world: Remembering) -> None:
    node = world.node.key_id
    assert world.register_ram(node) is Reason.SpaceTicketForeign
    assert (world.commit(), world.prove()) == (None, None)
    assert world.register_ram(world.ram_id) is None
    assert world.allocate_ram(SLAB, node, "a") is Reason.SpaceTicketForeign
    assert world.allocate_ram(SLAB, world.ram_id, "a") is None
    cpu = world.tx(
        world.operator,
        world.on_ram(world.operator, world.ram_id),
        allocate=allocation(world.node, world.cpu, "b", 1),
    )
    assert world.reason(cpu) is Reason.SpaceTicketForeign


def test_memory_with_less_free_than_must_be_filled_names_the_plots_ticket(world: Remembering) -> None:
    assert (world.commit(), world.prove(), world.register_ram(world.ram_id)) == (None, None, None)
    assert world.allocate_ram(3 * SLAB, world.ram_id, "a") is None
    assert world.allocate_ram(SLAB, world.ram_id, "b") is Reason.SpaceTicketForeign
    assert world.allocate_ram(SLAB, world.node.key_id, "b") is None


def test_memory_that_is_not_proven_again_is_not_allocated(world: Remembering) -> None:
    assert (world.commit(), world.prove(), world.register_ram(world.ram_id)) == (None, None, None)
    for _ in range(world.genesis.proofs.grace_epochs):
        world.next_epoch()
    assert world.allocate_ram(SLAB, world.ram_id, "a") is None
    world.next_epoch()
    assert world.allocate_ram(SLAB, world.ram_id, "b") is Reason.SpaceTicketStale
    for _ in range(12):  # the node's plot goes on winning; that must not forget the memory's newest
        world.next_epoch()
    held = allocation_id_of(world, "a")
    refs = world.on_ram(world.operator, world.ram_id)
    released = world.tx(world.operator, refs, release=ledger_pb2.Release(allocation_id=held))
    assert world.reason(released) is None


def allocation_id_of(world: Remembering, uid: str) -> bytes:
    return allocation(world.node, world.ram, uid, SLAB).allocation_id


def test_a_late_walk_is_refused(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)
    left = world.epoch.started_ms + ASKED.deadline_ms - world.now_ms
    world.block(after_ms=left - 10)
    before = dict(world.state.entries)
    assert world.commit(operation) is None  # ten milliseconds later: the last moment
    world.state.entries.clear()
    world.state.entries.update(before)
    assert world.commit(operation) is Reason.MemoryWalkLate


def test_the_same_commitment_again_is_taken_late_too(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)
    assert world.commit(operation) is None
    world.block(after_ms=ASKED.deadline_ms)
    assert world.commit(operation) is None
    operation.commitment.root = b"r" * 32
    assert world.commit(operation) is Reason.AlreadyCommitted


def test_a_walk_of_the_last_epoch_is_refused(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)
    world.next_epoch()
    assert world.commit(operation) is Reason.EpochWrong
    operation.epoch += 1
    assert world.commit(operation) is None  # nobody can tell from the root alone
    assert world.prove() is Reason.SpaceProofInvalid


def test_too_little_and_too_much_memory_is_refused(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)
    operation.commitment.slabs = 1
    assert world.commit(operation) is Reason.MemoryTooSmall
    operation.commitment.slabs = 2
    assert (world.commit(operation), world.prove(), world.register_ram(world.ram_id)) == (None, None, None)
    world.next_epoch()
    operation = world.filled.commit(world, world.node)
    operation.commitment.slabs = 5
    assert world.commit(operation) is Reason.Malformed


def test_memory_filled_for_another_asset_is_refused(world: Remembering) -> None:
    other = Filled(world.node.key_id, b"\xff" * 32)
    other.asset = world.ram_id
    assert world.commit(other.commit(world, world.node)) is None
    assert world.prove(other.prove(world, world.node)) is Reason.SpaceProofInvalid
    assert not list(world.state.scan(keys.tickets(SPACE, world.node.key_id, world.ram_id)))


def test_a_flipped_bit_wins_nothing(world: Remembering) -> None:
    assert world.commit() is None
    operation = world.filled.prove(world, world.node)
    opening = operation.proof.openings[3]
    opening.state = bytes([opening.state[0] ^ 1]) + opening.state[1:]
    assert world.prove(operation) is Reason.SpaceProofInvalid
    assert world.prove() is None


def test_what_was_not_committed_is_not_proven(world: Remembering) -> None:
    assert world.commit() is None
    operation = world.filled.prove(world, world.node)
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.prove(operation, other) is Reason.NotCommitted
    assert world.prove(operation, world.operator) is Reason.RoleForbidden
    operation.epoch += 1
    assert world.prove(operation) is Reason.EpochWrong
    operation.proof.asset = b"short"
    operation.epoch -= 1
    assert world.prove(operation) is Reason.Malformed


def test_what_cannot_be_committed(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.commit(operation, world.operator) is Reason.RoleForbidden
    assert world.commit(operation, other) is Reason.IdentifierWrong
    for asset in (world.cpu_id, world.node.key_id, b"\xff" * 32):  # its key id's ticket would be the plot's
        operation.commitment.asset = asset
        assert world.commit(operation) is Reason.IdentifierWrong
    operation.hardware_id = ""
    assert world.commit(operation) is Reason.Malformed
    for field in ("asset", "root"):
        operation = world.filled.commit(world, world.node)
        setattr(operation.commitment, field, b"short")
        assert world.commit(operation) is Reason.Malformed


def test_made_up_memories_cannot_fill_the_state(world: Remembering) -> None:
    operation = world.filled.commit(world, world.node)

    def commit_many(count: int) -> list[Reason | None]:
        operation.epoch = world.epoch.number
        txs = []
        for number in range(count):
            operation.hardware_id = f"ram-{number}"
            operation.commitment.asset = world.node.asset_id(MEMORY, operation.hardware_id)
            txs.append(world.tx(world.node, commit_memory=operation))
        return [result.reason for result in world.block(*txs)]

    assert commit_many(MAX_MEMORIES + 1) == [None] * MAX_MEMORIES + [Reason.Malformed]
    for _ in range(3):
        world.next_epoch()
    assert commit_many(1) == [None]
    assert len(list(world.state.scan(keys.MEMORY_SEED))) == 1


def test_a_chain_without_memory_parameters_takes_none_and_asks_for_none(settled: Settled) -> None:
    commitment = proofs_pb2.MemoryCommitment(asset=b"a" * 32, slabs=2, root=b"r" * 32)
    operation = ledger_pb2.CommitMemory(epoch=settled.epoch.number, commitment=commitment)
    assert settled.reason(settled.tx(settled.node, commit_memory=operation)) is Reason.Malformed
    proof = ledger_pb2.ProveMemory(epoch=settled.epoch.number)
    assert settled.reason(settled.tx(settled.node, prove_memory=proof)) is Reason.Malformed
    ram = registration(settled.node, MEMORY, "ram", 1 << 40, work_device=settled.cpu_id)
    settled.register(settled.node, ram)


def test_two_chains_of_the_same_blocks_agree(root: TrustRoot) -> None:
    """The verifier's answer is part of execution: replayed, it must write the same bytes."""
    from hypermesh_ledger.checks import verify_now
    from hypermesh_ledger.execution import execute

    first = Remembering(root)
    before = dict(first.state.entries)
    assert (first.commit(), first.prove(), first.register_ram(first.ram_id)) == (None, None, None)
    after = dict(first.state.entries)
    first.state.entries.clear()
    first.state.entries.update(before)
    for block in first.blocks[-3:]:
        first.state.write(execute(first.state, block, verify_now).writes)
    assert dict(first.state.entries) == after
