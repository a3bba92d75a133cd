"""Round trips in votes, as the state takes them in: whose, of which epoch, once; and when all of it begins."""

from __future__ import annotations

import copy

import pytest

from hypermesh import operations, places
from hypermesh.v1 import ledger_pb2, trust_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.places import COUNTED
from hypermesh_ledger.rechecking import TOLD

from ...builders import TrustRoot, member
from .extended import Extended
from .test_validators import address

Record, RoundTrip = votes_pb2.PlaceRecord, votes_pb2.RoundTrip


class Placed(Extended):
    """With an enrolled node."""

    def __init__(self, root: TrustRoot) -> None:
        super().__init__(root)
        self.node = member(root, trust_pb2.ROLE_NODE, "node-1")
        enrolling = self.tx(self.node, enrol_node=ledger_pb2.EnrolNode(certificate=self.node.certificate))
        assert self.go(enrolling).operations[0].reason is None

    def trip(self, microseconds: int = 700, **changes: object) -> RoundTrip:
        made = {"node": self.node.key_id, "epoch": self.epoch.number, "microseconds": microseconds}
        return RoundTrip(**{**made, **changes})  # type: ignore[arg-type]

    def tell(self, said: dict[int, list[RoundTrip]], rules: dict[int, int] | None = None) -> None:
        """A block after which these round trips are heard; everybody knows the rules unless told otherwise."""
        for number in range(4):
            extension = votes_pb2.VoteExtension(
                clock_ms=self.now_ms,
                round_trips=said.get(number, []),
                rules=(rules or {}).get(number, extensions.RULES),
            )
            self.say[number] = operations.canonical(extension)
        self.go()
        self.say = {}

    def bounds(self) -> dict[bytes, tuple[int, int]]:
        held = read(self.state, keys.place(self.node.key_id), Record)
        if held is None:
            return {}
        assert held.node == self.node.key_id
        assert [each.validator for each in held.bounds] == sorted(each.validator for each in held.bounds)
        return {each.validator: (each.microseconds, each.epoch) for each in held.bounds}


@pytest.fixture(scope="module")
def grown(root: TrustRoot) -> Placed:
    return Placed(root)


@pytest.fixture
def chain(grown: Placed) -> Placed:
    return copy.deepcopy(grown)


def test_each_validators_bound_is_kept_by_node(chain: Placed) -> None:
    now = chain.epoch.number
    chain.tell({0: [chain.trip(700)], 1: [chain.trip(90_000)], 3: [chain.trip(5)]})
    assert chain.bounds() == {address(0): (700, now), address(1): (90_000, now), address(3): (5, now)}
    record = read(chain.state, keys.place(chain.node.key_id), Record)
    assert record is not None
    assert places.believed_us(record, extensions.signers(chain.state, chain.height), now) == 700


def test_nothing_is_written_until_somebody_tells_and_all_know_the_rules(chain: Placed) -> None:
    before = set(chain.state.entries)
    chain.tell({})
    chain.tell({0: [chain.trip(700)]}, rules={2: 0})
    assert set(chain.state.entries) == before
    chain.tell({0: [chain.trip(700)]})
    assert set(chain.state.entries) - before == {keys.PLACES, keys.place(chain.node.key_id)}
    chain.tell({1: [chain.trip(800)]}, rules={2: 0})
    assert set(chain.bounds()) == {address(0), address(1)}, "it has begun for good"


def test_a_silent_vote_does_not_let_it_begin(chain: Placed) -> None:
    chain.tell({})
    for number in (0, 1, 2):
        said = votes_pb2.VoteExtension(clock_ms=chain.now_ms, round_trips=[chain.trip(9)], rules=extensions.RULES)
        chain.say[number] = operations.canonical(said)
    chain.say[3] = b""
    chain.go()
    assert chain.state.get(keys.PLACES) is None


def test_who_is_not_heard_in_time_may_run_an_older_program(chain: Placed) -> None:
    """Blocks show more than two thirds of the votes; whose came late executes them too."""
    chain.tell({})
    chain.away = {3}
    chain.tell({0: [chain.trip(9)]})
    assert len(chain.commit(chain.height).votes) == 3
    assert chain.state.get(keys.PLACES) is None
    chain.away = set()
    chain.go()
    chain.tell({0: [chain.trip(9)]})
    assert set(chain.bounds()) == {address(0)}
    chain.away = {3}
    chain.tell({1: [chain.trip(8)]})
    assert set(chain.bounds()) == {address(0), address(1)}, "it has begun for good"


@pytest.mark.parametrize(
    "changes",
    [
        {"node": b"x" * 32},
        {"node": b"x" * 31},
        {"node": b""},
        {"node": b"x" * 500},
        {"microseconds": 0},
        {"microseconds": places.LONGEST_US + 1},
        {"microseconds": (1 << 32) - 1},
        {"epoch": 0},
        {"epoch": (1 << 64) - 1},
    ],
)
def test_what_no_honest_validator_says_is_nothing(chain: Placed, changes: dict[str, object]) -> None:
    made = chain.trip()
    for name, value in changes.items():
        setattr(made, name, value)
    chain.tell({0: [made]})
    assert not [key for key in chain.state.entries if key.startswith(keys.PLACE)]


def test_epochs_that_are_over_or_to_come_are_nothing(chain: Placed) -> None:
    now = chain.epoch.number
    chain.tell(
        {0: [chain.trip(1, epoch=now - 2)], 1: [chain.trip(2, epoch=now + 1)], 2: [chain.trip(3, epoch=now - 1)]}
    )
    assert chain.bounds() == {address(2): (3, now - 1)}


def test_the_first_word_of_an_epoch_counts_and_a_newer_epoch_replaces_it(chain: Placed) -> None:
    now = chain.epoch.number
    chain.tell({0: [chain.trip(700), chain.trip(1)]})
    chain.tell({0: [chain.trip(2)]})
    assert chain.bounds() == {address(0): (700, now)}
    chain.now_ms += chain.genesis.proofs.epoch_ms
    chain.go()
    chain.tell({0: [chain.trip(9_000)]})
    assert chain.bounds() == {address(0): (9_000, now + 1)}, "where it was then says nothing about now"
    chain.tell({0: [chain.trip(1, epoch=now)]})
    assert chain.bounds() == {address(0): (9_000, now + 1)}


def test_old_bounds_go_when_the_record_is_written(chain: Placed) -> None:
    chain.tell({0: [chain.trip(700)], 1: [chain.trip(800)]})
    chain.now_ms += (places.FRESH_EPOCHS + 1) * chain.genesis.proofs.epoch_ms
    chain.go()
    assert len(chain.bounds()) == 2
    chain.tell({1: [chain.trip(900)]})
    assert chain.bounds() == {address(1): (900, chain.epoch.number)}


def test_only_so_many_of_one_extension_are_looked_at(chain: Placed) -> None:
    chain.tell({0: [chain.trip(7, node=bytes([n]) * 32) for n in range(COUNTED)] + [chain.trip(7)]})
    assert chain.bounds() == {}


def test_as_many_as_are_looked_at_fit_beside_all_verdicts() -> None:
    verdict = votes_pb2.Verdict(epoch=(1 << 63) - 1, result=b"r" * 32, outcome=votes_pb2.RECHECK_OUTCOME_SKIPPED)
    trip = RoundTrip(node=b"n" * 32, epoch=(1 << 63) - 1, microseconds=places.LONGEST_US)
    said = votes_pb2.VoteExtension(
        clock_ms=1 << 52, verdicts=[verdict] * TOLD, round_trips=[trip] * COUNTED, rules=extensions.RULES
    )
    assert extensions.parse(operations.canonical(said)) is not None
