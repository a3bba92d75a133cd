"""Trust scores: what one event does, who earns and who loses, and that nobody's silence costs more than its share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import behaviour, scores
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.scores import Event, step, steps
from hypermesh_ledger.state import Fork

from ...builders import Member, TrustRoot, allocation, member, registration
from .world import CPU, MEMORY, Settled, World

UP = {Event.PROVEN, Event.SERVED, Event.ATTENDED}
SCORES = st.integers(0, scores.MAX_SCORE)
EVENTS = st.sampled_from(list(Event))


# -- one event ---------------------------------------------------------------------------------------------------


@given(SCORES, EVENTS)
def test_an_event_moves_a_score_its_own_way_and_never_out_of_bounds(score: int, event: Event) -> None:
    after = step(score, event)
    assert 0 <= after <= scores.MAX_SCORE
    if event in UP:
        assert after > score or score == scores.MAX_SCORE
    else:
        assert after < score or score == 0


@given(SCORES, SCORES, EVENTS)
def test_who_is_ahead_stays_ahead(one: int, other: int, event: Event) -> None:
    low, high = sorted((one, other))
    assert step(low, event) <= step(high, event)


@given(SCORES, EVENTS, st.integers(0, 3_000))
def test_many_at_once_are_as_many_one_by_one(score: int, event: Event, times: int) -> None:
    slowly = score
    for _ in range(times):
        slowly = step(slowly, event)
    assert steps(score, event, times) == slowly


def test_both_ends_are_reached_in_bounded_time() -> None:
    assert steps(0, Event.PROVEN, 1_500) == scores.MAX_SCORE
    assert steps(scores.MAX_SCORE, Event.MISSED, 421) == 0


def test_how_long_it_takes() -> None:
    """The figures of the decision and of the docstrings."""

    def epochs(score: int, event: Event, until: int) -> int:
        count = 0
        while (score < until) if event in UP else (score > until):
            score, count = step(score, event), count + 1
        return count

    assert epochs(5_000, Event.PROVEN, 7_500) == 184
    assert epochs(5_000, Event.PROVEN, 9_000) == 440
    assert epochs(5_000, Event.MISSED, 2_500) == 45
    assert epochs(step(5_000, Event.FAKED), Event.PROVEN, 5_000) == 146
    assert epochs(step(9_000, Event.FAKED), Event.PROVEN, 9_000) == 554
    assert step(5_000, Event.ABSENT) == 4_000


@pytest.mark.parametrize(("percent", "low", "high"), [(99, 9_350, 9_550), (90, 6_700, 7_000), (50, 1_950, 2_100)])
def test_where_a_node_settles(percent: int, low: int, high: int) -> None:
    """Proofs spread evenly, missed ones too."""
    score = 5_000
    for epoch in range(3_000):
        proves = (epoch + 1) * percent // 100 > epoch * percent // 100
        score = step(score, Event.PROVEN if proves else Event.MISSED)
    assert low <= score <= high


# -- a ledger ----------------------------------------------------------------------------------------------------


def exact(world: World, node: Member) -> int:
    """The record's score; what clients read must be its hundreds."""
    found = scores.find(world.state, node.key_id)
    assert found is not None
    assert world.score(node) == scores.shown(found[1].score)
    return found[1].score


def owed(world: World) -> list[bytes]:
    return [key for key, _ in world.state.scan(keys.OWED)]


def test_a_node_that_proves_rises(settled: Settled) -> None:
    expected = 5_000
    for _ in range(20):
        settled.next_epoch()
        settled.win(settled.node, settled.cpu_id)
        expected = step(expected, Event.PROVEN)
    assert exact(settled, settled.node) == expected > 5_300


def test_proving_twice_counts_once(settled: Settled) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    settled.win(settled.node, settled.cpu_id)
    assert exact(settled, settled.node) == step(5_000, Event.PROVEN)


def test_a_silent_node_falls_and_is_refused(settled: Settled) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    risen = exact(settled, settled.node)
    for _ in range(3):
        settled.next_epoch()
    assert exact(settled, settled.node) == step(risen, Event.MISSED)
    settled.win(settled.node, settled.cpu_id)  # tickets are fresh again, the score is not back
    asked = allocation(settled.node, settled.cpu, "u", 1)
    shown = settled.score(settled.node)
    assert shown == scores.shown(step(step(step(risen, Event.MISSED), Event.MISSED), Event.PROVEN)) == 4_800
    assert settled.reason(settled.allocate(asked, min_trust_score=shown + 1)) is Reason.TrustTooLow
    assert settled.reason(settled.allocate(asked, min_trust_score=shown)) is None


def test_silence_ends_at_nothing_and_then_costs_the_ledger_nothing(settled: Settled) -> None:
    for _ in range(380):
        settled.next_epoch()
    assert exact(settled, settled.node) == 0
    assert not owed(settled)
    before = settled.state.get(keys.trust(scores.identity_of(settled.node.body)))
    settled.next_epoch()
    assert settled.state.get(keys.trust(scores.identity_of(settled.node.body))) == before
    settled.win(settled.node, settled.cpu_id)
    assert exact(settled, settled.node) == step(0, Event.PROVEN)
    assert len(owed(settled)) == 1


def test_a_node_that_leaves_out_a_device_does_not_rise(settled: Settled) -> None:
    second = settled.node.asset_id(CPU, "cpu-1")
    settled.win(settled.node, settled.cpu_id, second)
    settled.register(settled.node, registration(settled.node, CPU, "cpu-1", 10))
    before = exact(settled, settled.node)
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    assert exact(settled, settled.node) == before
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id, b"d" * 32)
    assert exact(settled, settled.node) == before, "a device that is not registered is none of its assets"
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id, second)
    assert exact(settled, settled.node) < before, "epochs with a device left out were missed"


def test_who_has_nothing_registered_neither_earns_nor_owes(settled: Settled) -> None:
    bare = settled.enrol(trust_pb2.ROLE_NODE, "node-2", counter=1)
    for _ in range(3):
        settled.next_epoch()
        settled.win(bare, bare.asset_id(CPU, "cpu-0"))
    assert exact(settled, bare) == 5_000
    memory = registration(settled.node, MEMORY, "memory", 10, work_device=settled.cpu_id)
    settled.win(settled.node, settled.cpu_id)
    settled.register(settled.node, memory)
    for each in (settled.cpu, memory):
        refs = settled.refs(settled.node, settled.node, settled.cpu_id)
        retire = ledger_pb2.RetireAsset(asset_id=each.asset_id, revision=1)
        assert settled.reason(settled.tx(settled.node, refs, retire_asset=retire)) is None
    assert not owed(settled)


def test_an_outage_of_the_ledger_is_forgiven(settled: Settled) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    risen = exact(settled, settled.node)
    settled.next_epoch(skip=600)
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    settled.next_epoch()
    assert exact(settled, settled.node) == step(risen, Event.PROVEN)


def test_an_epoch_that_began_late_is_forgiven(settled: Settled) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    risen = exact(settled, settled.node)
    settled.block(after_ms=110_000)  # the ledger stood from the first millisecond of one epoch to the end of the next
    for _ in range(2):
        settled.next_epoch()
    assert exact(settled, settled.node) == risen
    settled.next_epoch()
    assert exact(settled, settled.node) == step(risen, Event.MISSED)


def test_a_new_key_washes_nothing(settled: Settled) -> None:
    scores_before = exact(settled, settled.node)
    for _ in range(10):
        settled.next_epoch()
    fallen = exact(settled, settled.node)
    assert fallen < scores_before
    again = settled.enrol(trust_pb2.ROLE_NODE, "node-1")
    assert exact(settled, again) == fallen
    assert settled.enrol(trust_pb2.ROLE_NODE, "node-1", cluster_uid="other", counter=3).key_id != again.key_id
    other = member(settled.root, trust_pb2.ROLE_OPERATOR, "node-1")
    settled.do(settled.tx(other, enrol_node=ledger_pb2.EnrolNode(certificate=other.certificate)))
    assert settled.score(other) == 5_000, "another role is another identity, and its score a constant"


def test_only_the_newest_keys_show_the_score(settled: Settled) -> None:
    later = [settled.enrol(trust_pb2.ROLE_NODE, "node-1") for _ in range(behaviour.KEYS)]
    assert settled.score(settled.node) == 0
    assert [settled.score(each) for each in later] == [5_000] * behaviour.KEYS
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    assert exact(settled, later[-1]) == 5_000, "an old key earns nothing"


def test_an_asset_that_comes_and_goes_owes_as_one_that_stays(settled: Settled) -> None:
    """Who retires and registers it again in every epoch escapes no miss; tickets are good for three epochs."""
    expected = 5_000
    for epoch in range(9):
        settled.next_epoch()
        proves = epoch % 3 == 0
        if proves:
            settled.win(settled.node, settled.cpu_id)
        expected = step(expected, Event.PROVEN if proves else Event.MISSED)
        refs = settled.refs(settled.node, settled.node, settled.cpu_id)
        retire = ledger_pb2.RetireAsset(asset_id=settled.cpu_id, revision=settled.asset(settled.cpu_id).revision)
        assert settled.reason(settled.tx(settled.node, refs, retire_asset=retire)) is None
        assert not owed(settled)
        again = ledger_pb2.RegisterAsset()
        again.CopyFrom(settled.cpu)
        again.revision = settled.asset(settled.cpu_id).revision
        settled.register(settled.node, again)
    assert exact(settled, settled.node) <= expected


def test_who_proves_and_comes_back_later_owes_nothing_for_the_time_between(settled: Settled) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    assert (
        settled.reason(
            settled.tx(settled.node, refs, retire_asset=ledger_pb2.RetireAsset(asset_id=settled.cpu_id, revision=1))
        )
        is None
    )
    risen = exact(settled, settled.node)
    for _ in range(5):
        settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    again = ledger_pb2.RegisterAsset()
    again.CopyFrom(settled.cpu)
    again.revision = 2
    settled.register(settled.node, again)
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    for _ in range(2):
        settled.next_epoch()
    assert exact(settled, settled.node) == step(risen, Event.PROVEN)


def test_a_new_key_does_not_stop_what_the_old_ones_assets_owe(settled: Settled) -> None:
    new = settled.enrol(trust_pb2.ROLE_NODE, "node-1")
    for _ in range(3):
        settled.next_epoch()
    missed = exact(settled, settled.node)
    assert missed == step(5_000, Event.MISSED)
    settled.win(new, new.asset_id(CPU, "cpu-0"))
    for _ in range(2):
        settled.next_epoch()
    assert exact(settled, settled.node) == step(missed, Event.MISSED), "the new key's proof pays, and earns nothing yet"


def test_a_key_shows_the_score_of_whom_it_is_certified_for_now(settled: Settled) -> None:
    """It was node-1's, and is node-2's with all it has registered: what node-1 earns does not show on it."""
    keypair, later = settled.node.keypair, settled.node.body.not_before + 1
    moved = Member(keypair, settled.root.issue(keypair.public, trust_pb2.ROLE_NODE, "node-2", not_before=later))
    assert settled.reason(settled.tx(moved, enrol_node=ledger_pb2.EnrolNode(certificate=moved.certificate))) is None
    first = settled.enrol(trust_pb2.ROLE_NODE, "node-1")
    fork = Fork(settled.state)
    for _ in range(10):
        scores.apply(fork, first.key_id, Event.PROVEN)
    settled.state.write(fork.writes)
    assert (settled.score(first), settled.score(moved)) == (5_100, 5_000)
    for _ in range(3):
        settled.next_epoch()
    assert exact(settled, moved) == step(5_000, Event.MISSED)
    assert settled.score(first) == 5_100, "it has nothing registered any more"


def test_a_lease_counts_once_an_epoch_and_only_when_it_was_one(settled: Settled) -> None:
    asked = [allocation(settled.node, settled.cpu, f"u{each}", 1) for each in range(3)]
    assert settled.reason(settled.allocate(asked[0])) is None
    assert settled.reason(settled.release(asked[0].allocation_id)) is None
    assert exact(settled, settled.node) == 5_000, "a moment shows nothing"
    for each in asked[1:]:
        assert settled.reason(settled.allocate(each)) is None
    for _ in range(2):
        settled.next_epoch()
        settled.win(settled.node, settled.cpu_id)
    before = exact(settled, settled.node)
    for each in asked[1:]:
        assert settled.reason(settled.release(each.allocation_id)) is None
    assert exact(settled, settled.node) == step(before, Event.SERVED)


@pytest.mark.parametrize("released", [True, False])
def test_a_lease_that_ends_on_a_dead_node_counts_against_it(settled: Settled, released: bool) -> None:
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    lease = 3600 if released else 290
    asked = [allocation(settled.node, settled.cpu, f"u{each}", 1, lease_seconds=lease) for each in range(2)]
    for each in asked:
        assert settled.reason(settled.allocate(each)) is None
    for _ in range(4):
        settled.next_epoch()
    before = exact(settled, settled.node)
    if released:
        for each in asked:
            assert settled.reason(settled.release(each.allocation_id)) is None
    else:
        settled.block(after_ms=59_000)
    assert exact(settled, settled.node) == step(before, Event.ABANDONED)


def test_the_owner_may_end_a_lease_without_any_event(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    assert settled.reason(settled.allocate(asked)) is None
    settled.next_epoch()
    settled.win(settled.node, settled.cpu_id)
    before = exact(settled, settled.node)
    assert settled.reason(settled.release(asked.allocation_id, settled.node)) is None
    assert exact(settled, settled.node) == before


def test_leases_that_end_with_an_outage_are_nobodys_fault(settled: Settled) -> None:
    asked = allocation(settled.node, settled.cpu, "u", 1, lease_seconds=100)
    assert settled.reason(settled.allocate(asked)) is None
    before = exact(settled, settled.node)
    settled.next_epoch(skip=50)
    ended = settled.allocation(asked.allocation_id)
    assert ended is not None
    assert ended.state == ledger_pb2.ALLOCATION_STATE_EXPIRED
    assert exact(settled, settled.node) == before


def test_blame_by_other_rules_and_of_strangers(settled: Settled) -> None:
    fork = Fork(settled.state)
    scores.apply(fork, settled.node.key_id, Event.FAKED)
    settled.state.write(fork.writes)
    assert exact(settled, settled.node) == 1_250
    fork = Fork(settled.state)
    scores.apply(fork, b"?" * 32, Event.FAKED)
    scores.apply(fork, settled.operator.key_id, Event.FAKED)
    assert fork.writes == {}


def test_many_silent_nodes_are_accounted_a_bounded_number_a_block(
    root: TrustRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behaviour, "PER_BLOCK", 2)
    world = Settled(root)
    nodes = [world.node]
    for count in range(1, 5):
        nodes.append(world.enrol(trust_pb2.ROLE_NODE, f"node-{count + 1}", counter=count))
        world.win(nodes[-1], nodes[-1].asset_id(CPU, "cpu-0"))
        world.register(nodes[-1], registration(nodes[-1], CPU, "cpu-0", 10))
    epoch = world.epoch.number
    while world.epoch.number < epoch + 4:
        world.next_epoch()
    for _ in range(3):
        world.block()
    expected = steps(5_000, Event.MISSED, 2)
    assert {exact(world, node) for node in nodes} == {expected}, "late, but for every epoch"
    before = dict(world.state.entries)
    world.block()
    assert world.state.entries == before, "nothing is left to do"


def test_nodes_do_not_touch_each_other(root: TrustRoot) -> None:
    """The same events in any order among nodes give the same scores."""

    def play(order: list[int]) -> list[bytes]:
        for each in order:
            scores.apply(fork, nodes[each].key_id, Event.FAKED if each == 1 else Event.PROVEN)
        return [value for _, value in fork.scan(keys.TRUST)]

    world = World(root)
    nodes = [world.enrol(trust_pb2.ROLE_NODE, f"node-{each}", counter=each) for each in range(3)]
    outcomes = []
    for order in ([0, 1, 2, 0], [2, 0, 0, 1], [1, 0, 2, 0]):
        fork = Fork(world.state)
        outcomes.append(play(order))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_every_record_is_found_by_the_index_exactly_when_it_owes(settled: Settled) -> None:
    for epoch in range(6):
        settled.next_epoch()
        if epoch % 3 == 0:
            settled.win(settled.node, settled.cpu_id)
        record = read(settled.state, keys.trust(scores.identity_of(settled.node.body)), scores.Record)
        assert record is not None
        assert owed(settled) == [keys.owed(record.due_epoch, scores.identity_of(settled.node.body))]
