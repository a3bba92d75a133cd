"""Who computes a work result again, whose verdict counts, and what more than half of them can do."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from hypermesh import operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import rechecks, scores
from hypermesh_ledger.execution.context import Context, read
from hypermesh_ledger.state import Fork

from ...builders import TrustRoot, member, registration
from .extended import Extended
from .test_validators import CHAIN, address
from .world import CPU, WORK

AGREE, DISAGREE = votes_pb2.RECHECK_OUTCOME_AGREE, votes_pb2.RECHECK_OUTCOME_DISAGREE
SKIPPED, OPEN = votes_pb2.RECHECK_OUTCOME_SKIPPED, votes_pb2.RECHECK_OUTCOME_UNSPECIFIED


class Checked(Extended):
    """With a node whose CPU has a ticket of this epoch, and no record yet."""

    def __init__(self, root: TrustRoot, *, joined: bool = True) -> None:
        super().__init__(root, joined=joined)
        self.node = member(root, trust_pb2.ROLE_NODE, "node-1")
        enrolling = self.tx(self.node, enrol_node=ledger_pb2.EnrolNode(certificate=self.node.certificate))
        assert self.go(enrolling).operations[0].reason is None
        self.device = self.node.asset_id(CPU, "cpu-0")
        self.win(self.node, self.device)

    def prove(self, epoch: int | None = None, device: bytes | None = None) -> votes_pb2.RecheckRecord | None:
        """As `prove` does after it has won the tickets."""
        fork, number = Fork(self.state), self.epoch.number if epoch is None else epoch
        decoded = operations.decode(self.tx(self.node, prove=ledger_pb2.Prove(epoch=number)))
        hash_ = b"b" * 32
        context = Context(fork, self.height, self.now_ms, hash_, CHAIN, self.genesis, self.epoch, verify_now, decoded)
        seed = ledger_pb2.WorkSeed(node=self.node.key_id, epoch=number, seed=number.to_bytes(32, "big"))
        commitment = proofs_pb2.WorkCommitment(device=device or self.device, root=b"r" * 32)
        result = self.newest(WORK, self.node, self.device)
        rechecks.begin(context, seed, commitment, b"c" * 32, result)
        self.state.write(fork.writes)
        return read(self.state, keys.recheck(number, result), votes_pb2.RecheckRecord)

    def recheck(self) -> votes_pb2.RecheckRecord:
        (found,) = rechecks.records(self.state)
        return found

    def tell(self, outcomes: dict[int, int], **changes: object) -> None:
        """A block after which the verdicts of these validators are in the state."""
        record = self.recheck()
        self.say = {}
        for number, outcome in outcomes.items():
            verdict = votes_pb2.Verdict(epoch=record.epoch, result=record.result, outcome=outcome)  # type: ignore[arg-type]
            for name, value in changes.items():
                setattr(verdict, name, value)
            said = votes_pb2.VoteExtension(clock_ms=self.now_ms, verdicts=[verdict])
            self.say[number] = operations.canonical(said)
        self.go()
        self.say = {}

    def drawn(self) -> list[int]:
        numbers = {address(number): number for number in range(6)}
        return [numbers[each.address] for each in self.recheck().drawn]

    def outcomes(self) -> list[int]:
        return [each.outcome for each in self.recheck().drawn]

    def score(self) -> int:
        found = read(self.state, keys.node(self.node.key_id), ledger_pb2.NodeRecord)
        assert found is not None
        return found.trust_score

    def ticket(self) -> proofs_pb2.Ticket:
        key = keys.ticket(WORK, self.node.key_id, self.device, self.epoch.number)
        found = read(self.state, key, proofs_pb2.Ticket)
        assert found is not None
        return found

    def registering(self, name: str = "cpu-0") -> Reason | None:
        refs = self.refs(self.node, self.node, self.device)
        asset = registration(self.node, CPU, name, 100, work_device=self.device)
        (result,) = self.go(self.tx(self.node, refs, register_asset=asset)).operations
        return result.reason


@pytest.fixture(scope="module")
def grown(root: TrustRoot) -> Checked:
    return Checked(root)


@pytest.fixture
def chain(grown: Checked) -> Checked:
    return copy.deepcopy(grown)


def test_a_lone_validators_chain_holds_nothing_of_it(root: TrustRoot) -> None:
    alone = Checked(root, joined=False)
    before = dict(alone.state.entries)
    assert alone.prove() is None
    assert alone.state.entries == before


def test_a_young_nodes_results_are_all_computed_again_by_three(chain: Checked) -> None:
    first = chain.epoch.number
    for epoch in range(first, first + rechecks.YOUNG_EPOCHS):
        record = chain.prove(epoch)
        assert record is not None
        assert len({each.address for each in record.drawn}) == rechecks.DRAWN
    assert (record.node, record.device, record.epoch) == (chain.node.key_id, chain.device, epoch)
    assert (record.root, record.challenge) == (b"r" * 32, b"c" * 32)


def test_later_one_in_ten_is_and_everybody_is_drawn_alike(chain: Checked) -> None:
    first, count = chain.epoch.number, 400
    chain.prove(first)
    drawn: Counter[bytes] = Counter()
    for epoch in range(first + rechecks.YOUNG_EPOCHS, first + rechecks.YOUNG_EPOCHS + count):
        record = chain.prove(epoch)
        if record is not None:
            drawn.update(each.address for each in record.drawn)
    results = sum(drawn.values()) / rechecks.DRAWN
    assert count / rechecks.SAMPLED / 3 < results < count / rechecks.SAMPLED * 3
    assert min(drawn.values()) > results / 4


def test_who_is_drawn_follows_from_the_seed_that_comes_after_the_commitment(chain: Checked) -> None:
    epochs = range(chain.epoch.number, chain.epoch.number + rechecks.YOUNG_EPOCHS)
    records = [chain.prove(epoch) for epoch in epochs]
    orders = {tuple(each.address for each in record.drawn) for record in records if record is not None}
    assert len(orders) > 3


def test_agreement_is_recorded_and_changes_nothing_else(chain: Checked) -> None:
    chain.prove()
    one, two, three = chain.drawn()
    chain.tell({one: AGREE, two: AGREE, three: DISAGREE})
    assert chain.outcomes() == [AGREE, AGREE, DISAGREE]
    assert not chain.recheck().refuted
    assert not chain.ticket().revoked
    assert chain.registering() is None


@pytest.mark.parametrize("at_once", [True, False])
def test_more_than_half_against_it_revoke_the_ticket(chain: Checked, at_once: bool) -> None:
    chain.prove()
    before = chain.score()
    one, two, three = chain.drawn()
    if at_once:
        chain.tell({one: DISAGREE, two: AGREE, three: DISAGREE})
    else:
        chain.tell({one: DISAGREE})
        assert not chain.recheck().refuted
        chain.tell({three: DISAGREE})
    assert chain.recheck().refuted
    assert chain.ticket().revoked
    assert chain.score() == before // 4 // scores.SHOWN * scores.SHOWN
    assert chain.registering() is Reason.WorkTicketRevoked


def test_skipping_is_neither(chain: Checked) -> None:
    chain.prove()
    one, two, three = chain.drawn()
    chain.tell({one: DISAGREE, two: SKIPPED, three: SKIPPED})
    assert not chain.recheck().refuted


def test_verdicts_that_nobody_asked_for_are_nothing(chain: Checked) -> None:
    chain.prove()
    (stranger,) = {0, 1, 2, 3} - set(chain.drawn())
    one, two, _ = chain.drawn()
    before = chain.outcomes()
    chain.tell({stranger: DISAGREE})
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE), result=b"x" * 32)
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE), result=b"short")
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE), epoch=1)
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE), epoch=(1 << 64) - 1)
    chain.tell(dict.fromkeys(chain.drawn(), OPEN))
    chain.tell(dict.fromkeys(chain.drawn(), 77))
    assert chain.outcomes() == before == [OPEN] * 3
    chain.tell({one: AGREE})
    chain.tell({one: DISAGREE})
    chain.tell({two: DISAGREE})
    assert Counter(chain.outcomes()) == Counter([AGREE, DISAGREE, OPEN]), "the first one counts"
    assert not chain.recheck().refuted


def test_a_refuted_node_is_young_again(chain: Checked) -> None:
    chain.prove()
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE))
    chain.now_ms += 50 * chain.genesis.proofs.epoch_ms
    chain.go()
    assert not rechecks.records(chain.state)
    held = read(chain.state, keys.rechecked(chain.node.key_id), votes_pb2.RecheckedNode)
    assert held is not None
    assert held.first_epoch == chain.epoch.number - 50


def test_a_revoked_ticket_is_good_for_releasing(chain: Checked) -> None:
    """What the node serves must not stay locked; see tickets.require_tickets(any_age)."""
    from hypermesh_ledger.execution.tickets import require_tickets

    chain.prove()
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE))
    refs = chain.refs(chain.node, chain.node, chain.device)
    tx = chain.tx(chain.node, refs, release=ledger_pb2.Release(allocation_id=b"x" * 32))
    context = Context(
        Fork(chain.state),
        chain.height,
        chain.now_ms,
        b"h" * 32,
        CHAIN,
        chain.genesis,
        chain.epoch,
        verify_now,
        operations.decode(tx),
    )
    signer = context.node(chain.node.key_id)
    assert signer is not None
    require_tickets(context, signer, chain.node.key_id, chain.device, any_age=True)


def test_old_records_are_forgotten(chain: Checked) -> None:
    chain.prove()
    chain.go(after_ms=rechecks.KEPT_EPOCHS * chain.genesis.proofs.epoch_ms)
    assert rechecks.records(chain.state)
    chain.go(after_ms=chain.genesis.proofs.epoch_ms)
    assert not rechecks.records(chain.state)


def test_a_ticket_that_has_left_the_state_is_not_missed(chain: Checked) -> None:
    chain.prove()
    ticket = chain.ticket()
    chain.state.write({keys.ticket_hash(ticket.hash): None})
    chain.tell(dict.fromkeys(chain.drawn(), DISAGREE))
    assert chain.recheck().refuted
