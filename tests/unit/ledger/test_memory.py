"""CommitMemory and ProveMemory in the ledger, and that no more of a memory is reserved than was shown of it."""

from __future__ import annotations

from typing import Any

import pytest

from hypermesh.proofs.challenges import challenge, memory_owner
from hypermesh.proofs.parameters import DEMO, MEMORY_DEMO
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.memory import DELIVERY_MS, MAX_MEMORIES

from ...adversary.memories import Claim, block
from ...builders import Member, TrustRoot, allocation, registration
from .world import CHAIN, MEMORY, Settled, World

SLAB = 1 << 20
SLABS = 8
SHOWN = SLABS * SLAB // 1000 * 900
DEADLINE_MS = 5_000


def asking() -> proofs_pb2.ProofParameters:
    """The demo's, with memory in small slabs, and epochs longer than a region may take to come."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.epoch_ms = 4 * DELIVERY_MS
    params.memory.CopyFrom(MEMORY_DEMO)
    params.memory.slab_bytes, params.memory.samples, params.memory.deadline_ms = SLAB, 264, DEADLINE_MS
    return params


class Remembering(World):
    """A world that asks for memory: `operator`, `node` with its `cpu` device, `ram` of it that is not registered."""

    def __init__(self, root: TrustRoot) -> None:
        super().__init__(root, asking())
        self.operator = self.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
        self.node = self.enrol(trust_pb2.ROLE_NODE, "node-1")
        self.cpu_id = self.node.asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0")
        self.ram = registration(self.node, MEMORY, "ram", SHOWN, work_device=self.cpu_id)
        self.claimed: Claim | None = None
        self.next_epoch()

    def next_epoch(self) -> None:
        """Its first block, and the next, by whose time the challenge is known; the node's other tickets are won."""
        self.block(after_ms=self.genesis.proofs.epoch_ms - self.now_ms % self.genesis.proofs.epoch_ms)
        self.block()
        self.asked_ms = self.now_ms
        self.win(self.node, self.cpu_id)

    def claim(
        self, slabs: int = SLABS, held_by: Member | None = None, chain_id: str = CHAIN
    ) -> ledger_pb2.CommitMemory:
        """What the node commits when it has filled so much."""
        asset, asked = self.ram.asset_id, self.genesis.proofs.memory
        filled = memory_owner(chain_id, (held_by or self.node).key_id)
        c = challenge(CHAIN, self.epoch.beacon, self.node.key_id, self.epoch.number)
        owner = memory_owner(CHAIN, self.node.key_id)
        self.claimed = Claim(owner, asset, c, slabs, asked, lambda number: block(filled, asset, number, asked))
        commitment = self.claimed.commitment
        return ledger_pb2.CommitMemory(epoch=self.epoch.number, commitment=commitment, hardware_id="ram")

    def commit(self, operation: ledger_pb2.CommitMemory, settled_ms: int = 10) -> Reason | None:
        """With the block after it, when it was taken."""
        reason = self.reason(self.tx(self.node, commit_memory=operation))
        if reason is None:
            self.block(after_ms=settled_ms)
        return reason

    def prove(self, signer: Member | None = None, **changes: Any) -> Reason | None:
        assert self.claimed is not None
        operation = ledger_pb2.ProveMemory(
            epoch=self.record.epoch if self.record.epoch else self.epoch.number,
            proof=self.claimed.proof(self.record.seed),
        )
        for name, value in changes.items():
            setattr(operation, name, value)
        return self.reason(self.tx(signer or self.node, prove_memory=operation))

    def show(self, slabs: int = SLABS) -> None:
        """A ticket of this epoch."""
        assert (self.commit(self.claim(slabs)), self.prove()) == (None, None)

    @property
    def record(self) -> ledger_pb2.MemoryRecord:
        return (
            read(self.state, keys.memory(self.node.key_id, self.ram.asset_id), ledger_pb2.MemoryRecord)
            or ledger_pb2.MemoryRecord()
        )

    def on(self, signer: Member) -> proofs_pb2.TicketRefs:
        return self.refs(signer, self.node, self.cpu_id)

    def register_ram(self, **changes: int) -> Reason | None:
        for name, value in changes.items():
            setattr(self.ram, name, value)
        return self.reason(self.tx(self.node, self.on(self.node), register_asset=self.ram))

    def allocate_ram(self, amount: int, uid: str) -> Reason | None:
        asked = allocation(self.node, self.ram, uid, amount)
        return self.reason(self.tx(self.operator, self.on(self.operator), allocate=asked))

    def release_ram(self, uid: str) -> Reason | None:
        named = ledger_pb2.Release(allocation_id=allocation(self.node, self.ram, uid, 1).allocation_id)
        return self.reason(self.tx(self.operator, self.on(self.operator), release=named))

    def update_ram(self, capacity: int) -> Reason | None:
        revision = self.asset(self.ram.asset_id).revision
        change = ledger_pb2.UpdateAsset(
            asset_id=self.ram.asset_id, revision=revision, capacity=capacity, sharing=self.ram.sharing
        )
        return self.reason(self.tx(self.node, self.on(self.node), update_asset=change))

    def retire_ram(self) -> Reason | None:
        change = ledger_pb2.RetireAsset(asset_id=self.ram.asset_id, revision=self.asset(self.ram.asset_id).revision)
        return self.reason(self.tx(self.node, self.on(self.node), retire_asset=change))


@pytest.fixture
def world(root: TrustRoot) -> Remembering:
    return Remembering(root)


@pytest.fixture
def shown(world: Remembering) -> Remembering:
    """Registered with all that was shown."""
    world.show()
    assert world.register_ram() is None
    return world


def test_a_ticket_says_how_much_it_shows(world: Remembering) -> None:
    assert world.commit(world.claim()) is None
    assert not world.record.HasField("ticket")
    assert world.prove() is None
    ticket = world.record.ticket
    assert (ticket.epoch, ticket.filled, ticket.shown) == (world.epoch.number, SLABS * SLAB, SHOWN)
    assert len(ticket.hash) == 32
    assert world.prove() is Reason.AlreadyProven


def test_the_seed_is_drawn_by_the_next_block(world: Remembering) -> None:
    assert world.reason(world.tx(world.node, commit_memory=world.claim())) is None
    claimed = world.claimed
    assert claimed is not None
    assert not world.record.seed
    early = ledger_pb2.ProveMemory(epoch=world.epoch.number, proof=claimed.proof(b""))
    fresh = ledger_pb2.CommitMemory(epoch=world.epoch.number, commitment=claimed.commitment, hardware_id="ram-2")
    fresh.commitment.asset = early.proof.asset = world.node.asset_id(MEMORY, "ram-2")
    together = (world.tx(world.node, commit_memory=fresh), world.tx(world.node, prove_memory=early))
    assert [result.reason for result in world.block(*together)] == [None, Reason.NotCommitted]
    assert world.record.seed
    world.block()
    assert not list(world.state.scan(keys.MEMORY_OPEN))


def test_a_commitment_at_the_last_moment_is_taken(world: Remembering) -> None:
    operation = world.claim()
    world.block(after_ms=DEADLINE_MS - (world.now_ms - world.asked_ms) - 10)
    assert world.reason(world.tx(world.node, commit_memory=operation)) is None
    world.block(after_ms=0)
    assert world.record.seed


def test_a_commitment_after_the_deadline_is_refused(world: Remembering) -> None:
    operation = world.claim()
    world.block(after_ms=DEADLINE_MS)
    assert world.commit(operation) is Reason.MemoryLate


def test_the_next_block_says_when_a_commitment_was_there(world: Remembering) -> None:
    """A block's own time is older than what it holds: an early time does not help who came late."""
    assert world.commit(world.claim(), settled_ms=DEADLINE_MS) is None
    assert world.record.late
    assert world.prove() is Reason.MemoryLate
    world.next_epoch()
    world.show()


def test_an_epochs_first_block_does_not_start_the_clock(world: Remembering) -> None:
    """Its time is that of its predecessor's agreement; an idle ledger may have waited long after that."""
    world.block(after_ms=world.genesis.proofs.epoch_ms - world.now_ms % world.genesis.proofs.epoch_ms)
    operation = world.claim()
    world.block(after_ms=10 * DEADLINE_MS)
    assert world.commit(operation) is None
    assert world.prove() is None


def test_a_commitment_that_the_next_epoch_finds_open_is_late(world: Remembering) -> None:
    assert world.reason(world.tx(world.node, commit_memory=world.claim())) is None
    world.next_epoch()
    assert world.record.late


def test_one_commitment_an_epoch(world: Remembering) -> None:
    operation = world.claim()
    assert world.commit(operation) is None
    assert world.commit(operation) is None
    operation.commitment.root = b"r" * 32
    assert world.commit(operation) is Reason.AlreadyCommitted


def test_a_root_of_the_epoch_before_wins_nothing(world: Remembering) -> None:
    operation = world.claim()
    world.next_epoch()
    assert world.commit(operation) is Reason.EpochWrong
    operation.epoch += 1
    assert world.commit(operation) is None  # nobody can tell from the root alone
    assert world.prove() is Reason.SpaceProofInvalid


def test_memory_filled_for_another_node_wins_nothing(world: Remembering) -> None:
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.commit(world.claim(held_by=other)) is None
    assert world.prove() is Reason.SpaceProofInvalid


def test_memory_filled_for_another_chain_wins_nothing(world: Remembering) -> None:
    assert world.commit(world.claim(chain_id="hypermesh-other")) is None
    assert world.prove() is Reason.SpaceProofInvalid


def test_less_memory_claimed_as_more_wins_nothing(world: Remembering) -> None:
    operation = world.claim(SLABS // 2)
    operation.commitment.slabs = SLABS
    assert world.commit(operation) is None
    claimed = world.claimed
    assert claimed is not None
    claimed.commitment.slabs = SLABS
    claimed.levels = [claimed.levels[0] * 2, *claimed.levels]
    assert world.prove() is Reason.SpaceProofInvalid


def test_what_cannot_be_committed(world: Remembering) -> None:
    operation = world.claim()
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.reason(world.tx(other, commit_memory=operation)) is Reason.IdentifierWrong
    assert world.reason(world.tx(world.operator, commit_memory=operation)) is Reason.RoleForbidden
    operation.commitment.asset = world.node.key_id
    assert world.commit(operation) is Reason.IdentifierWrong
    for field, value in (("asset", b"short"), ("root", b"short"), ("slabs", 0), ("slabs", 2**32 - 1)):
        operation = world.claim()
        setattr(operation.commitment, field, value)
        assert world.commit(operation) is Reason.Malformed
    operation = world.claim()
    operation.hardware_id = ""
    assert world.commit(operation) is Reason.Malformed


def test_what_cannot_be_proven(world: Remembering) -> None:
    assert world.commit(world.claim()) is None
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.prove(other) is Reason.NotCommitted
    assert world.prove(world.operator) is Reason.RoleForbidden
    assert world.prove(epoch=world.epoch.number + 1) is Reason.EpochWrong
    assert world.prove() is None


# -- what may be reserved ------------------------------------------------------------------------------------


def test_no_capacity_without_a_proof(world: Remembering) -> None:
    assert world.register_ram() is Reason.MemoryTicketMissing
    world.show()
    assert world.register_ram(capacity=SHOWN + 1) is Reason.MemoryNotShown
    assert world.register_ram(capacity=1 << 50) is Reason.MemoryNotShown
    assert world.register_ram(capacity=SHOWN) is None


def test_no_more_is_reserved_than_was_shown(shown: Remembering) -> None:
    assert shown.allocate_ram(SHOWN - 5, "a") is None
    assert shown.allocate_ram(6, "b") is Reason.InsufficientCapacity
    assert shown.allocate_ram(5, "b") is None
    assert shown.release_ram("a") is None
    assert shown.allocate_ram(1, "c") is Reason.MemoryNotShown  # what came back was not shown since


def test_what_comes_back_counts_when_it_is_shown_again(shown: Remembering) -> None:
    assert shown.allocate_ram(SHOWN, "a") is None
    assert shown.release_ram("a") is None
    shown.block(after_ms=2 * DELIVERY_MS)
    shown.next_epoch()
    assert shown.allocate_ram(1, "b") is Reason.MemoryNotShown
    shown.show()
    assert shown.allocate_ram(SHOWN, "b") is None


def test_an_accomplice_does_not_free_for_others_what_was_shown_once(shown: Remembering) -> None:
    """Lease all of it to a friend, show the same memory again, end the friend's lease: that gives nothing to lease."""
    assert shown.allocate_ram(SHOWN, "friend") is None
    shown.block(after_ms=2 * DELIVERY_MS)
    shown.next_epoch()
    shown.show()
    assert shown.update_ram(2 * SHOWN) is None
    assert shown.release_ram("friend") is None
    assert shown.allocate_ram(SHOWN, "a") is None
    assert shown.allocate_ram(1, "b") is Reason.MemoryNotShown


def test_what_was_granted_just_before_the_epoch_may_have_been_shown_too(shown: Remembering) -> None:
    """Not delivered yet, and so in the fill: it counts against the new ticket as well."""
    left = shown.genesis.proofs.epoch_ms - shown.now_ms % shown.genesis.proofs.epoch_ms
    shown.block(after_ms=left - 1_000)
    assert shown.allocate_ram(SHOWN // 2, "a") is None
    shown.next_epoch()
    shown.show()
    assert shown.update_ram(2 * SHOWN) is Reason.MemoryNotShown
    assert shown.update_ram(SHOWN // 2 + SHOWN - SHOWN // 2) is None
    assert shown.allocate_ram(SHOWN - SHOWN // 2 + 1, "b") is Reason.InsufficientCapacity
    assert shown.allocate_ram(SHOWN - SHOWN // 2, "b") is None


def test_what_was_granted_long_before_the_epoch_is_covered_by_its_lease(shown: Remembering) -> None:
    assert shown.allocate_ram(SHOWN // 2, "a") is None
    shown.block(after_ms=2 * DELIVERY_MS)
    shown.next_epoch()
    shown.show(SLABS // 2)
    assert shown.allocate_ram(SHOWN - SHOWN // 2, "b") is None


def test_what_was_granted_between_epoch_and_proof_counts_against_the_ticket(shown: Remembering) -> None:
    shown.next_epoch()
    operation = shown.claim()
    assert shown.allocate_ram(SHOWN // 2, "a") is None
    assert shown.commit(operation) is None
    assert shown.allocate_ram(SHOWN // 4, "b") is None
    assert shown.prove() is None
    assert shown.update_ram(2 * SHOWN) is Reason.MemoryNotShown
    available = SHOWN - SHOWN // 2 - SHOWN // 4
    assert shown.update_ram(SHOWN) is None
    assert shown.release_ram("a") is None
    assert shown.allocate_ram(available + 1, "c") is Reason.MemoryNotShown
    assert shown.allocate_ram(available, "c") is None


def test_a_proof_that_ends_in_the_next_epoch_counts_from_its_own(shown: Remembering) -> None:
    shown.block(after_ms=2 * DELIVERY_MS)
    shown.next_epoch()
    assert shown.commit(shown.claim()) is None
    assert shown.allocate_ram(SHOWN // 2, "a") is None
    shown.next_epoch()
    assert shown.allocate_ram(SHOWN // 4, "b") is None
    assert shown.prove() is None
    assert shown.release_ram("a") is None
    assert shown.allocate_ram(SHOWN // 4 + 3, "c") is Reason.MemoryNotShown
    assert shown.allocate_ram(SHOWN // 4, "c") is None


def test_an_owner_cannot_grow_capacity_beyond_what_was_shown(shown: Remembering) -> None:
    """Also not in steps: each lease eats what the next growth would need."""
    assert shown.update_ram(SHOWN + 1) is Reason.MemoryNotShown
    for step in range(3):
        assert shown.allocate_ram(SHOWN // 4, f"a{step}") is None
        assert shown.update_ram(SHOWN + 1) is Reason.MemoryNotShown
    assert shown.update_ram(SHOWN) is None


def test_a_memory_registered_small_does_not_grow_by_the_plots_ticket(world: Remembering) -> None:
    world.show(1)
    least = SLAB // 1000 * 900
    assert world.register_ram(capacity=least) is None
    assert world.allocate_ram(least, "a") is None
    assert world.update_ram(2 * least) is Reason.MemoryNotShown


def test_a_stale_ticket_is_worth_nothing(shown: Remembering) -> None:
    for _ in range(shown.genesis.proofs.grace_epochs):
        shown.next_epoch()
    assert shown.allocate_ram(1, "a") is None
    shown.next_epoch()
    assert shown.allocate_ram(1, "b") is Reason.MemoryTicketStale


def test_release_and_retire_need_no_memory_ticket(shown: Remembering) -> None:
    assert shown.allocate_ram(1, "a") is None
    for _ in range(shown.genesis.proofs.grace_epochs + 9):
        shown.next_epoch()
    assert shown.update_ram(SHOWN - 1) is None  # less is always believed
    assert shown.release_ram("a") is None
    assert shown.retire_ram() is None


def test_retiring_does_not_renew_what_was_shown(shown: Remembering) -> None:
    assert shown.allocate_ram(SHOWN, "a") is None
    assert (shown.release_ram("a"), shown.retire_ram()) == (None, None)
    assert shown.register_ram(revision=shown.asset(shown.ram.asset_id).revision) is Reason.MemoryNotShown


def test_made_up_memories_cannot_fill_the_state(shown: Remembering) -> None:
    """The registered one stays, whatever else its node makes up."""

    def commit_many(count: int, name: str = "made-up") -> list[Reason | None]:
        txs = []
        for number in range(count):
            operation = shown.claim()
            operation.hardware_id = f"{name}-{number}"
            operation.commitment.asset = shown.node.asset_id(MEMORY, operation.hardware_id)
            txs.append(shown.tx(shown.node, commit_memory=operation))
        return [result.reason for result in shown.block(*txs)]

    assert commit_many(MAX_MEMORIES) == [None] * (MAX_MEMORIES - 1) + [Reason.Malformed]
    for _ in range(4):
        shown.next_epoch()
    assert commit_many(1, "new") == [None]
    assert len(list(shown.state.scan(keys.MEMORY))) == 2
    assert shown.record.ticket.shown == SHOWN


def test_a_chain_without_memory_parameters_takes_none_and_asks_for_none(settled: Settled) -> None:
    commitment = proofs_pb2.MemoryCommitment(asset=b"a" * 32, slabs=2, root=b"r" * 32)
    operation = ledger_pb2.CommitMemory(epoch=settled.epoch.number, commitment=commitment, hardware_id="ram")
    assert settled.reason(settled.tx(settled.node, commit_memory=operation)) is Reason.Malformed
    proof = ledger_pb2.ProveMemory(epoch=settled.epoch.number)
    assert settled.reason(settled.tx(settled.node, prove_memory=proof)) is Reason.Malformed
    ram = registration(settled.node, MEMORY, "ram", 1 << 40, work_device=settled.cpu_id)
    settled.register(settled.node, ram)
    assert settled.reason(settled.allocate(allocation(settled.node, ram, "a", 1 << 40))) is None
    assert not [key for key in settled.state.entries if key.startswith(b"memory")]


def test_the_same_blocks_give_the_same_state(root: TrustRoot) -> None:
    from hypermesh_ledger.checks import verify_now
    from hypermesh_ledger.execution import execute

    first = Remembering(root)
    before = dict(first.state.entries)
    first.show()
    assert (first.register_ram(), first.allocate_ram(SLAB, "a")) == (None, None)
    after = dict(first.state.entries)
    first.state.entries.clear()
    first.state.entries.update(before)
    for each in first.blocks[-5:]:
        first.state.write(execute(first.state, each, verify_now).writes)
    assert dict(first.state.entries) == after
