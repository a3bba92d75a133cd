"""CommitWork and Prove with real proofs: what wins tickets, what does not, and that once is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys

from ...builders import Member, TrustRoot, member, registration
from . import proofs
from .world import CPU, SPACE, TIME, WORK, World


class Proving:
    """A world with small parameters, a node that has committed the work of two devices, and its proof."""

    def __init__(self, root: TrustRoot, node: Member, plot: Path) -> None:
        self.world = World(root, proofs.small())
        self.node = node
        enrolment = ledger_pb2.EnrolNode(certificate=node.certificate)
        assert self.world.reason(self.world.tx(node, enrol_node=enrolment)) is None
        self.devices = [node.asset_id(CPU, "cpu-0"), node.asset_id(CPU, "cpu-1")]
        self.commitment = proofs.commitment(self.world, node, *self.devices)
        assert self.world.reason(self.world.tx(node, commit_work=self.commitment)) is None
        self.proof = proofs.proof(self.world, node, plot)

    def reason(self, proof: ledger_pb2.Prove) -> Reason | None:
        return self.world.reason(self.world.tx(self.node, prove=proof))


@pytest.fixture(scope="module")
def node(root: TrustRoot) -> Member:
    return member(root, trust_pb2.ROLE_NODE, "node-1")


@pytest.fixture(scope="module")
def plot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plots")


@pytest.fixture
def proving(root: TrustRoot, node: Member, plot: Path) -> Proving:
    return Proving(root, node, plot)


def test_a_proof_wins_every_ticket_once(proving: Proving) -> None:
    world, node = proving.world, proving.node
    assert proving.reason(proving.proof) is None
    for kind, subject in ((SPACE, node.key_id), (TIME, node.key_id), *((WORK, each) for each in proving.devices)):
        assert world.newest(kind, node, subject)
    refs = world.refs(node, node, proving.devices[0])
    assert world.reason(world.tx(node, refs, register_asset=registration(node, CPU, "cpu-0", 100))) is None
    assert proving.reason(proving.proof) is Reason.AlreadyProven


def test_the_next_beacon_depends_on_the_delay_proven(proving: Proving) -> None:
    mixed = proving.world.state.get(keys.VDF_MIX)
    assert proving.reason(proving.proof) is None
    assert proving.world.state.get(keys.VDF_MIX) not in (None, mixed)


def break_space(proof: ledger_pb2.Prove) -> None:
    answer = proof.space.answers[0]
    answer.proof = answer.proof[:-1] + bytes([answer.proof[-1] ^ 1])


def break_work(proof: ledger_pb2.Prove) -> None:
    opening = proof.work[1].openings[0]
    opening.values = bytes([opening.values[0] ^ 1]) + opening.values[1:]


def break_time(proof: ledger_pb2.Prove) -> None:
    proof.time.output = bytes([proof.time.output[0] ^ 1]) + proof.time.output[1:]


def swap_devices(proof: ledger_pb2.Prove) -> None:
    first, second = list(proof.work)
    del proof.work[:]
    proof.work.extend([second, first])


def drop_device(proof: ledger_pb2.Prove) -> None:
    del proof.work[1:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (break_space, Reason.SpaceProofInvalid),
        (break_work, Reason.WorkProofInvalid),
        (break_time, Reason.TimeProofInvalid),
        (swap_devices, Reason.WorkProofInvalid),
        (drop_device, Reason.WorkProofInvalid),
    ],
)
def test_all_or_nothing(proving: Proving, change: Callable[[ledger_pb2.Prove], None], reason: Reason) -> None:
    change(proving.proof)
    assert proving.reason(proving.proof) is reason
    assert not list(proving.world.state.scan(keys.TICKET))


def test_a_proof_for_another_node_or_epoch(proving: Proving) -> None:
    world = proving.world
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    assert world.reason(world.tx(other, prove=proving.proof)) is Reason.NotCommitted
    assert world.reason(world.tx(other, commit_work=proving.commitment)) is None
    assert world.reason(world.tx(other, prove=proving.proof)) is Reason.SpaceProofInvalid
    proving.proof.epoch += 1
    assert proving.reason(proving.proof) is Reason.EpochWrong


def test_a_proof_may_end_in_the_next_epoch(proving: Proving) -> None:
    proving.world.block(after_ms=proving.world.genesis.proofs.epoch_ms)
    assert proving.reason(proving.proof) is None


def test_a_proof_may_not_end_later(proving: Proving) -> None:
    for _ in range(2):
        proving.world.block(after_ms=proving.world.genesis.proofs.epoch_ms)
    assert proving.reason(proving.proof) is Reason.EpochWrong


def test_the_same_commitment_again_is_the_first_ones_height(proving: Proving) -> None:
    """And so it is answered at admission: it costs no block anything."""
    world, tx = proving.world, proving.world.tx(proving.node, commit_work=proving.commitment)
    first = proofs.seed_of(world, proving.node)
    before = dict(world.state.entries)
    for _ in range(3):
        result = world.do(tx)
        assert (result.reason, result.height) == (None, first.height)
    assert world.state.entries == before
    assert 0 < first.height < world.height


def test_other_work_for_the_same_epoch(proving: Proving) -> None:
    proving.commitment.commitments[0].root = b"r" * 32
    other = proving.world.tx(proving.node, commit_work=proving.commitment)
    assert proving.world.reason(other) is Reason.AlreadyCommitted
    proving.commitment.epoch += 1
    later = proving.world.tx(proving.node, commit_work=proving.commitment)
    assert proving.world.reason(later) is Reason.EpochWrong


def test_devices_that_cannot_be_committed(proving: Proving) -> None:
    world, node = proving.world, proving.node
    other = world.enrol(trust_pb2.ROLE_NODE, "node-2")
    world.win(other, other.asset_id(CPU, "cpu-0"))
    held = world.register(other, registration(other, CPU, "cpu-0", 1))
    world.block(after_ms=world.genesis.proofs.epoch_ms)
    for device, reason in ((held.asset_id, Reason.RoleForbidden), (b"short", Reason.Malformed)):
        foreign = ledger_pb2.CommitWork(epoch=world.epoch.number)
        foreign.commitments.add(device=device, root=b"r" * 32)
        assert world.reason(world.tx(node, commit_work=foreign)) is reason
    assert world.reason(world.tx(node, commit_work=ledger_pb2.CommitWork(epoch=world.epoch.number))) is Reason.Malformed


def test_tickets_of_devices_that_are_gone_are_forgotten(root: TrustRoot, node: Member, plot: Path) -> None:
    """A node with a new device every epoch keeps few tickets; one that an asset depends on stays for ever."""
    world = World(root, proofs.small())
    assert world.reason(world.tx(node, enrol_node=ledger_pb2.EnrolNode(certificate=node.certificate))) is None
    gone, kept = node.asset_id(CPU, "gone"), node.asset_id(CPU, "kept")
    unregistered = node.asset_id(CPU, "unregistered")
    world.win(node, gone, kept, unregistered)
    world.register(node, registration(node, CPU, "kept", 1))
    world.register(node, registration(node, 3, "memory", 1, work_device=unregistered))
    world.block(after_ms=100 * world.genesis.proofs.epoch_ms)
    device = node.asset_id(CPU, "new")
    assert world.reason(world.tx(node, commit_work=proofs.commitment(world, node, device))) is None
    assert world.reason(world.tx(node, prove=proofs.proof(world, node, plot))) is None
    for subject, stays in ((gone, False), (kept, True), (unregistered, True), (device, True)):
        assert bool(list(world.state.scan(keys.tickets(WORK, node.key_id, subject)))) is stays
    tickets = len(list(world.state.scan(keys.TICKET)))
    assert tickets == len(list(world.state.scan(keys.TICKET_HASH))) == 5


def test_a_ticket_is_named_by_its_key() -> None:
    for kind, subject in ((WORK, b"d" * 32), (SPACE, b"n" * 32)):
        named = keys.named_ticket(keys.ticket(kind, b"n" * 32, subject, 7))
        assert (named.kind, named.node, named.subject, named.epoch) == (kind, b"n" * 32, subject, 7)
