"""Who joins, leaves and is taken out, and that what is left can always make blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from hypermesh import operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, Lie, Result, Vote, behaviour, execute, scores
from hypermesh_ledger.execution import validators as rules
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.state import Fork, Memory

from ...builders import Member, TrustRoot
from .world import CHAIN, World

ACTIVE, WAITING = ledger_pb2.VALIDATOR_STATE_ACTIVE, ledger_pb2.VALIDATOR_STATE_WAITING
DOUBLE = ledger_pb2.MISBEHAVIOR_KIND_DUPLICATE_VOTE
TEN_MINUTES = operations.VALIDITY_MS


@cache
def consensus(number: int) -> MLDSA65PrivateKey:
    return MLDSA65PrivateKey.from_seed_bytes(bytes([number]) * 32)


def public(number: int) -> bytes:
    return consensus(number).public_key().public_bytes_raw()


def address(number: int) -> bytes:
    return rules.address_of(public(number))


class Chain(World):
    """A world whose CometBFT set is `powers`; validator n has consensus key n; 0 founds."""

    def __init__(self, root: TrustRoot) -> None:
        super().__init__(root)
        self.powers = {public(0): rules.POWER}
        self.members = [self.enrol(trust_pb2.ROLE_VALIDATOR, f"hypermesh-ledger-{n}") for n in range(6)]
        self.away: set[int] = set()

    def next(self, *txs: bytes, lies: tuple[Lie, ...] = (), after_ms: int = 10) -> list[Result]:
        """A block with everybody's votes but of those away; applies the new powers as CometBFT would."""
        self.height += 1
        self.now_ms += after_ms
        away = {address(number) for number in self.away}
        votes = [Vote(rules.address_of(key), rules.address_of(key) not in away) for key in sorted(self.powers)]
        block = Block(self.height, self.now_ms, operations.tx_hash(self.height.to_bytes(8, "big")), txs, votes, lies)
        outcome = execute(self.state, block, verify_now)
        self.state.write(outcome.writes)
        self.blocks.append(block)
        for each in outcome.powers:
            if each.power:
                self.powers[each.consensus_key] = each.power
            else:
                del self.powers[each.consensus_key]  # CometBFT panics when it is not there
        assert self.powers
        return outcome.results

    def joining(self, number: int, key: int | None = None, signer: Member | None = None, **changes: bytes) -> bytes:
        who, held = signer or self.members[number], consensus(number if key is None else key)
        operation = ledger_pb2.JoinValidator(
            consensus_key=held.public_key().public_bytes_raw(),
            possession=held.sign(rules.possession(CHAIN, who.key_id)),
        )
        for name, value in changes.items():
            setattr(operation, name, value)
        return self.tx(who, join_validator=operation)

    def join(self, *numbers: int) -> None:
        for number in numbers:
            (result,) = self.next(self.joining(number))
            assert result.reason is None, result

    def leaving(self, number: int) -> bytes:
        return self.tx(self.members[number], leave_validator=ledger_pb2.LeaveValidator())

    def why(self, tx: bytes) -> Reason | None:
        return self.next(tx)[0].reason

    def record(self, number: int) -> ledger_pb2.ValidatorRecord:
        found = read(self.state, keys.validator(rules.seat_of(self.members[number].body)), ledger_pb2.ValidatorRecord)
        assert found is not None
        return found

    def window(self) -> None:
        """Enough blocks and time for a whole window to begin and to end."""
        for _ in range(2 * rules.WINDOW_BLOCKS + 2):
            self.next(after_ms=rules.WINDOW_MS // rules.WINDOW_BLOCKS + 1)


@pytest.fixture
def chain(root: TrustRoot) -> Chain:
    return Chain(root)


def test_a_lone_chain_holds_nothing_of_validators(chain: Chain) -> None:
    before = dict(chain.state.entries)
    chain.next()
    chain.next(lies=(Lie(address(0), DOUBLE, 1, 1),))
    assert chain.state.entries == before


def test_the_set_goes_from_one_to_four_in_one_block(chain: Chain) -> None:
    assert chain.why(chain.joining(1)) is Reason.FounderUnknown
    chain.join(0, 1, 2)
    assert chain.powers == {public(0): 10}
    assert [chain.record(number).state for number in range(3)] == [ACTIVE, WAITING, WAITING]
    chain.join(3)
    assert chain.powers == {public(number): 10 for number in range(4)}
    assert len({chain.record(number).joined_height for number in (1, 2, 3)}) == 1
    chain.join(4)
    assert len(chain.powers) == 5


def test_a_candidate_that_stopped_asking_is_not_counted(chain: Chain) -> None:
    chain.join(0, 1, 2)
    chain.next(after_ms=rules.CANDIDACY_MS + 1)
    chain.join(3)
    assert chain.powers == {public(0): 10}
    chain.join(1, 2)
    assert len(chain.powers) == 4


def test_who_may_not_join(chain: Chain) -> None:
    chain.join(0)
    operator = chain.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
    assert chain.why(chain.joining(1, signer=operator)) is Reason.RoleForbidden
    assert chain.why(chain.joining(1, key=0)) is Reason.ConsensusKeyTaken
    assert chain.why(chain.joining(1, consensus_key=public(2))) is Reason.PossessionUnproven
    assert chain.why(chain.joining(1, possession=b"x" * rules.SIGNATURE_BYTES)) is Reason.PossessionUnproven
    assert chain.why(chain.joining(1, consensus_key=b"short")) is Reason.Malformed
    stolen = consensus(1).sign(rules.possession(CHAIN, chain.members[2].key_id))
    assert chain.why(chain.joining(1, possession=stolen)) is Reason.PossessionUnproven
    record = read(chain.state, keys.node(chain.members[1].key_id), ledger_pb2.NodeRecord)
    assert record is not None
    record.trust_score = rules.TRUST_BOUND - 1
    chain.state.write({keys.node(chain.members[1].key_id): operations.canonical(record)})
    assert chain.why(chain.joining(1)) is Reason.TrustTooLow


def test_many_keys_of_one_name_have_one_vote(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    again = chain.enrol(trust_pb2.ROLE_VALIDATOR, "hypermesh-ledger-1")
    assert chain.why(chain.joining(1, key=9, signer=again)) is None
    assert set(chain.powers) == {public(number) for number in (0, 9, 2, 3)}, (
        "a new key takes the seat's old one's place"
    )


def test_leaving_leaves_four(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    assert chain.why(chain.leaving(3)) is Reason.TooFewValidators
    assert chain.why(chain.leaving(4)) is Reason.NotValidator
    chain.join(4)
    old = chain.joining(3)
    assert chain.why(chain.leaving(3)) is None
    assert public(3) not in chain.powers
    assert chain.why(chain.leaving(3)) is Reason.NotValidator
    assert chain.why(old) is Reason.SeatResting
    chain.next(after_ms=TEN_MINUTES)
    assert chain.why(old) is Reason.Expired
    chain.join(3)
    assert len(chain.powers) == 5


def test_leaving_must_not_stop_the_chain(chain: Chain) -> None:
    chain.join(0, 1, 2, 3, 4)
    chain.away = {1, 2}
    assert chain.why(chain.leaving(3)) is Reason.TooFewValidators


def test_the_absent_is_taken_out_while_four_remain(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    chain.away = {3}
    chain.window()
    assert len(chain.powers) == 4, "postponed: three would be left"
    assert chain.record(3).state == ACTIVE
    chain.join(4)
    chain.window()
    assert set(chain.powers) == {public(number) for number in (0, 1, 2, 4)}
    record = chain.record(3)
    assert record.state == ledger_pb2.VALIDATOR_STATE_ABSENT
    assert record.missed_blocks >= rules.WINDOW_BLOCKS
    chain.away = set()
    chain.next(after_ms=TEN_MINUTES)
    chain.join(3)
    assert len(chain.powers) == 5


def test_who_signs_a_hundredth_is_there(chain: Chain) -> None:
    """Blocks go on without waiting for the slowest; it must not be taken for gone."""
    chain.join(0, 1, 2, 3, 4)
    for count in range(2 * rules.WINDOW_BLOCKS + 2):
        chain.away = set() if count % 50 == 0 else {3}
        chain.next(after_ms=rules.WINDOW_MS // rules.WINDOW_BLOCKS + 1)
    assert len(chain.powers) == 5


def test_a_present_set_writes_next_to_nothing(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    epoch_ms = chain.genesis.proofs.epoch_ms
    chain.next(after_ms=epoch_ms - chain.now_ms % epoch_ms)  # no other begins in the test
    for _ in range(rules.SEEN_BLOCKS + 1):
        chain.next()
    before = dict(chain.state.entries)
    for _ in range(100):
        chain.next()
    assert chain.state.entries == before


def test_the_liar_goes_for_good_and_evidence_stays(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    lie = Lie(address(3), DOUBLE, 5, 55)
    chain.next(lies=(lie, lie))
    assert set(chain.powers) == {public(number) for number in range(3)}
    assert chain.record(3).state == ledger_pb2.VALIDATOR_STATE_EXPELLED
    kept = read(chain.state, keys.evidence(address(3)), ledger_pb2.Evidence)
    assert kept is not None
    assert (kept.kind, kept.height, kept.time_ms, kept.recorded_height) == (DOUBLE, 5, 55, chain.height)
    chain.next(after_ms=TEN_MINUTES)
    assert chain.why(chain.joining(3)) is Reason.ValidatorExpelled
    assert chain.why(chain.joining(3, key=9)) is Reason.ValidatorExpelled
    assert chain.why(chain.joining(5, key=3)) is Reason.ValidatorExpelled
    chain.join(4)
    assert len(chain.powers) == 4


def test_a_liar_stays_as_long_as_the_others_could_not_go_on(chain: Chain) -> None:
    chain.join(0, 1, 2, 3)
    chain.away = {2}
    chain.next(lies=(Lie(address(3), DOUBLE, 5, 55),))
    assert len(chain.powers) == 4, "two of the three others are no more than two thirds"
    assert chain.record(3).state == ledger_pb2.VALIDATOR_STATE_CONDEMNED
    assert chain.why(chain.leaving(3)) is Reason.NotValidator
    chain.away = set()
    chain.next()
    assert chain.record(3).state == ledger_pb2.VALIDATOR_STATE_EXPELLED
    assert len(chain.powers) == 3


def test_the_same_blocks_give_the_same_state(chain: Chain) -> None:
    start, begun = dict(chain.state.entries), len(chain.blocks)
    chain.join(0, 1, 2, 3, 4)
    chain.next(chain.leaving(4), lies=(Lie(address(2), DOUBLE, 5, 55),))
    world = Memory(start)
    for block in chain.blocks[begun:]:
        world.write(execute(world, replace(block, votes=list(block.votes)[::-1]), verify_now).writes)
    assert world.entries == chain.state.entries, "the order of votes means nothing"


def score(chain: Chain, number: int) -> int:
    """Exact; what clients read is its hundreds."""
    found = scores.find(chain.state, chain.members[number].key_id)
    assert found is not None
    assert chain.score(chain.members[number]) == scores.shown(found[1].score)
    return found[1].score


def test_absence_costs_trust_and_waiting_gives_it_back(chain: Chain) -> None:
    chain.join(0, 1, 2, 3, 4)
    chain.away = {4}
    chain.window()
    assert chain.record(4).state == ledger_pb2.VALIDATOR_STATE_ABSENT
    assert score(chain, 4) == rules.TRUST_BOUND
    assert score(chain, 1) == scores.step(5_000, scores.Event.ATTENDED), "one window was whole"
    chain.next(after_ms=TEN_MINUTES)
    fork = Fork(chain.state)
    scores.apply(fork, chain.members[4].key_id, scores.Event.ABSENT)  # as after its next absence
    chain.state.write(fork.writes)
    assert score(chain, 4) == 3_200
    assert chain.why(chain.joining(4)) is Reason.TrustTooLow
    epochs = (rules.TRUST_BOUND - 3_200) // behaviour.REST
    chain.next(after_ms=(epochs - 2) * chain.genesis.proofs.epoch_ms)
    assert chain.why(chain.joining(4)) is Reason.TrustTooLow
    chain.next(after_ms=2 * chain.genesis.proofs.epoch_ms)
    assert chain.why(chain.joining(4)) is None
    assert score(chain, 4) >= rules.TRUST_BOUND


def test_a_liar_has_no_trust_left(chain: Chain) -> None:
    chain.join(0, 1, 2, 3, 4)
    lie = Lie(address(2), DOUBLE, 3, 33)
    chain.next(lies=(lie,))
    assert score(chain, 2) == 0
    assert score(chain, 1) == 5_000
