"""The state machine, from every state there can be: it converges, whoever was killed before and wherever.

`Cluster` is what Kubernetes, the ledger and a node remember; a process remembers nothing from one step to the next but
the verdict of an attempt that failed, and killing it forgets that too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from hypermesh.conditions import find, is_true
from hypermesh.resources import FINALIZER
from hypermesh_operator import flow, statuses
from hypermesh_operator.flow import FlightState, World, decide
from hypermesh_operator.objects import Allocation, Grant, Mapping
from hypermesh_operator.statuses import Names, Verdict

from .worlds import GRANT, MAPPING, NOW, allocation

NAMES = Names("node-1-memory-01010101", "node-1")
BOUND_S = 120.0
NONE_FITS = Verdict(flow.NO_ASSET_FITS, "no memory asset fits: 1 too small (largest free 1Mi)", retry_s=30.0)


@dataclass
class Cluster:
    """Three memories, and what the ledger would answer to an Allocate."""

    allocation: Allocation
    grant: Grant | None = None
    mapping: Mapping | None = None
    fresh: bool = True
    answer: Verdict | None = None
    seconds: float = 0.0
    gone: bool = False
    busy: bool = False
    published_s: float = 1e9
    doubted: bool = False
    chain_id: str = GRANT.chain_id
    steps: list[str] = field(default_factory=list)

    def world(self, verdict: Verdict | None, reported_s: float = 1e9) -> World:
        grant = self.grant
        return World(
            allocation=self.allocation,
            grant=grant,
            names=NAMES if grant else Names("", ""),
            mapping=self.mapping,
            doubted=self.doubted,
            chain_id=self.chain_id,
            fresh=self.fresh,
            flight=FlightState.NONE,
            verdict=verdict,
            reported_s=reported_s,
            published_s=self.published_s,
            busy=self.busy,
            now=NOW + timedelta(seconds=self.seconds),
            release_timeout_s=BOUND_S,
        )

    def do(self, step: flow.Step) -> Verdict | None:
        self.steps.append(type(step).__name__)
        match step:
            case flow.AddFinalizer():
                self.allocation = replace(self.allocation, finalizers=(FINALIZER,))
            case flow.Allocate():
                if self.answer is not None:
                    return self.answer
                self.grant = GRANT
            case flow.Publish():
                self.mapping = MAPPING
            case flow.Withdraw():
                self.mapping = None
            case flow.Report(status):
                self.allocation = replace(self.allocation, status=status)
            case flow.Release():
                assert self.grant is not None
                self.grant = replace(self.grant, active=False)
            case flow.Forget():
                self.allocation = replace(self.allocation, finalizers=())
                self.gone = True
        return None

    def run(self, limit: int = 20) -> flow.Step:
        """Until rest; the resting step."""
        verdict: Verdict | None = None
        for _ in range(limit):
            step = decide(self.world(verdict))
            if isinstance(step, flow.Rest):
                return step
            verdict = self.do(step) or (verdict if isinstance(step, flow.Report) else None)
        raise AssertionError(f"no rest after {limit} steps: {self.steps}")

    def ready(self) -> Any:
        return find(self.allocation.status.get("conditions") or (), "Ready")


def test_the_straight_road() -> None:
    cluster = Cluster(allocation())
    assert cluster.run() == flow.Rest()
    assert cluster.steps == ["AddFinalizer", "Allocate", "Publish", "Report"]
    assert cluster.ready()["reason"] == "WaitingForNode"
    cluster.mapping = replace(MAPPING, programmed=True)
    assert cluster.run() == flow.Rest()
    conditions = cluster.allocation.status["conditions"]
    assert [item["type"] for item in conditions] == ["Proven", "Reserved", "Programmed", "Ready"]
    assert all(is_true(conditions, kind) for kind in ("Proven", "Reserved", "Programmed", "Ready"))
    assert cluster.allocation.status["proxyAddress"] == GRANT.address
    assert cluster.allocation.status["granted"] == {"memory": "1Gi"}


def test_nothing_is_reserved_before_deletion_would_release_it() -> None:
    assert isinstance(decide(Cluster(allocation()).world(None)), flow.AddFinalizer)


GRANTS = {
    "none": None,
    "active": GRANT,
    "released": replace(GRANT, active=False),
    "expired": replace(GRANT, active=False, expired=True),
}
MAPPINGS = {"none": None, "waiting": MAPPING, "programmed": replace(MAPPING, programmed=True)}
STATUSES = {
    "none": {},
    "pending": statuses.pending(allocation(), NONE_FITS, NOW),
    "granted": statuses.granted(allocation(), GRANT, NAMES, None, None, NOW),
    "ended": statuses.ended(allocation(), replace(GRANT, active=False), NAMES, NOW),
}
STATES = list(itertools.product(GRANTS, MAPPINGS, STATUSES, (False, True), (None, "NoAssetFits")))


@pytest.mark.parametrize(("grant", "mapping", "status", "finalized", "answer"), STATES)
def test_converges_from_every_state(grant: str, mapping: str, status: str, finalized: bool, answer: str | None) -> None:
    """As after a kill anywhere: whatever the three remember, it ends where it should, and then rests."""
    cluster = Cluster(
        allocation(finalized=finalized, status=STATUSES[status]),
        GRANTS[grant],
        MAPPINGS[mapping],
        answer=NONE_FITS if answer else None,
    )
    cluster.run()
    ready = cluster.ready()
    once_granted = status in ("granted", "ended")
    if grant == "active" or (grant == "none" and not once_granted and answer is None):
        assert cluster.grant == GRANT
        assert cluster.mapping is not None
        assert cluster.allocation.finalized
        assert (ready["status"] == "True") == (mapping == "programmed")
    elif grant == "none" and not once_granted:
        assert (ready["status"], ready["reason"]) == ("False", "NoAssetFits")
    else:
        assert (ready["status"], ready["reason"]) == ("False", "LeaseExpired" if grant == "expired" else "Released")
        assert cluster.mapping is None
        assert "Allocate" not in cluster.steps, "an ended allocation never comes back by itself"
    again = Cluster(cluster.allocation, cluster.grant, cluster.mapping, answer=cluster.answer)
    again.run()
    assert "Report" not in again.steps, "nothing new is no news"


@pytest.mark.parametrize(("grant", "mapping", "status", "finalized", "answer"), STATES)
def test_deletion_releases_from_every_state(
    grant: str, mapping: str, status: str, finalized: bool, answer: str | None
) -> None:
    deleted = allocation(finalized=finalized, status=STATUSES[status], deleted_at=NOW.timestamp())
    cluster = Cluster(deleted, GRANTS[grant], MAPPINGS[mapping])
    cluster.run()
    if finalized:
        assert cluster.gone
        assert cluster.grant is None or not cluster.grant.active
    else:
        assert cluster.steps == []


def test_kill_after_every_step_changes_nothing() -> None:
    """The same road, a new process for each step."""
    cluster = Cluster(allocation())
    for _ in range(10):
        step = decide(cluster.world(None))
        if isinstance(step, flow.Rest):
            break
        cluster.do(step)
    assert cluster.steps == ["AddFinalizer", "Allocate", "Publish", "Report"]


def test_without_the_ledger_it_says_so_and_looks_again() -> None:
    cluster = Cluster(allocation(finalized=True), fresh=False)
    rest = cluster.run()
    assert isinstance(rest, flow.Rest)
    assert rest.seconds is not None
    conditions = cluster.allocation.status["conditions"]
    assert cluster.ready()["reason"] == "LedgerUnavailable"
    assert find(conditions, "Reserved")["status"] == "Unknown"  # type: ignore[index]
    cluster.fresh = True
    cluster.run()
    assert cluster.grant == GRANT


def test_what_was_granted_is_not_doubted_while_the_ledger_is_away() -> None:
    cluster = Cluster(allocation(finalized=True, status=STATUSES["granted"]), fresh=False)
    assert isinstance(cluster.run(), flow.Rest)
    assert cluster.steps == []


def test_deletion_without_the_ledger_says_for_how_long_it_waits_and_then_goes() -> None:
    deleted = allocation(finalized=True, status=STATUSES["granted"], deleted_at=NOW.timestamp())
    cluster = Cluster(deleted, GRANT, MAPPING, fresh=False)
    rest = cluster.run()
    assert isinstance(rest, flow.Rest)
    assert rest.seconds is not None
    assert not cluster.gone
    assert cluster.ready()["reason"] == "Releasing"
    assert "until 2026-11-22T18:02:00Z" in cluster.ready()["message"]
    assert is_true(cluster.allocation.status["conditions"], "Reserved"), "it still is"
    cluster.seconds = BOUND_S
    step = decide(cluster.world(None))
    assert isinstance(step, flow.Forget)
    assert step.abandoned


def test_a_refused_release_waits_within_the_same_bound() -> None:
    deleted = allocation(finalized=True, status=STATUSES["granted"], deleted_at=NOW.timestamp())
    refused = Verdict("RoleForbidden", "not ours.", retry_s=2.0)
    cluster = Cluster(deleted, GRANT, MAPPING)
    assert isinstance(decide(cluster.world(None)), flow.Release)
    assert isinstance(decide(cluster.world(refused)), flow.Report)
    cluster.seconds = BOUND_S
    assert isinstance(decide(cluster.world(refused)), flow.Forget)


def test_deletion_waits_for_a_submission_whose_outcome_is_unknown() -> None:
    deleted = allocation(finalized=True, deleted_at=NOW.timestamp())
    world = replace(Cluster(deleted).world(None), flight=FlightState.SENT)
    step = decide(world)
    assert isinstance(step, flow.Report)
    assert "Releasing" in str(step.status)
    assert isinstance(decide(replace(world, flight=FlightState.NONE)), flow.Forget)


def test_a_committed_submission_is_waited_for_not_repeated() -> None:
    world = replace(Cluster(allocation(finalized=True)).world(None), flight=FlightState.COMMITTED)
    assert isinstance(decide(world), flow.Rest)


def test_figures_alone_are_news_only_once_in_a_while() -> None:
    finalized = allocation(finalized=True, status=STATUSES["pending"])
    other = replace(NONE_FITS, message="no memory asset fits: 1 too small (largest free 2Mi)")
    cluster = Cluster(finalized)
    soon = decide(cluster.world(other, reported_s=1.0))
    assert isinstance(soon, flow.Rest)
    assert soon.seconds == pytest.approx(9.0)
    assert isinstance(decide(cluster.world(other, reported_s=11.0)), flow.Report)


def test_contention_is_told_to_nobody() -> None:
    verdict = Verdict(flow.CONTENDED, "", retry_s=1.0)
    assert decide(Cluster(allocation(finalized=True)).world(verdict)) == flow.Rest(1.0)


def test_trouble_in_publishing_is_told_and_tried_again() -> None:
    trouble = Verdict("PublishFailed", "Secret team-a/scratch-access: forbidden.", retry_s=10.0)
    cluster = Cluster(allocation(finalized=True), GRANT)
    step = decide(cluster.world(trouble))
    assert isinstance(step, flow.Report)
    cluster.do(step)
    assert cluster.ready()["reason"] == "PublishFailed"
    assert decide(cluster.world(trouble)) == flow.Rest(10.0)
    assert isinstance(decide(cluster.world(None)), flow.Publish)


def test_a_publication_in_doubt_is_made_again_and_changes_no_status() -> None:
    cluster = Cluster(allocation(finalized=True), GRANT, replace(MAPPING, programmed=True))
    cluster.run()
    cluster.doubted = True
    assert isinstance(decide(cluster.world(None)), flow.Publish)
    cluster.doubted = False
    cluster.steps.clear()
    assert cluster.run() == flow.Rest()
    assert cluster.steps == []


def test_a_secret_that_cannot_be_made_again_is_told_though_the_node_answers() -> None:
    cluster = Cluster(allocation(finalized=True), GRANT, replace(MAPPING, programmed=True), doubted=True)
    trouble = Verdict("TokenKeyChanged", "Restore Secret hypermesh-operator-key.", retry_s=60.0)
    step = decide(cluster.world(trouble))
    cluster.do(step)
    conditions = cluster.allocation.status["conditions"]
    assert is_true(conditions, "Programmed")
    assert (cluster.ready()["status"], cluster.ready()["reason"]) == ("False", "TokenKeyChanged")
    assert decide(cluster.world(trouble)) == flow.Rest(60.0)
    successor = Cluster(cluster.allocation, GRANT, cluster.mapping, published_s=float("inf"))
    assert isinstance(decide(successor.world(None)), flow.Publish), "not taken back unseen"
    assert isinstance(decide(replace(successor.world(None), published_s=1.0)), flow.Report)


def test_a_mapping_of_another_grant_is_replaced() -> None:
    """As after the ledger began anew: the Allocation is the same, the transaction is not."""
    other = replace(MAPPING, transaction="00" * 32, programmed=True)
    assert decide(Cluster(allocation(finalized=True), GRANT, other).world(None)) == flow.Publish(GRANT)


def test_what_the_node_complains_of_is_shown() -> None:
    mapping = replace(MAPPING, reason="EnforcementFailed", message="no memory cgroup.")
    cluster = Cluster(allocation(finalized=True), GRANT, mapping)
    cluster.run()
    assert cluster.ready()["reason"] == "EnforcementFailed"
    assert cluster.ready()["message"] == "Node node-1: no memory cgroup."


@pytest.mark.parametrize(("busy", "bound"), [(False, flow.TOGETHER_S), (True, flow.TOGETHER_BUSY_S)])
def test_one_status_says_what_comes_together_but_silence_is_bounded(busy: bool, bound: float) -> None:
    cluster = Cluster(allocation(finalized=True), GRANT, MAPPING, busy=busy, published_s=bound / 2)
    assert cluster.run() == flow.Rest(bound / 2)
    assert cluster.steps == []
    cluster.mapping = replace(MAPPING, programmed=True)
    cluster.run()
    assert cluster.steps == ["Report"]
    assert cluster.ready()["status"] == "True"
    silent = Cluster(allocation(finalized=True), GRANT, MAPPING, busy=busy, published_s=bound)
    silent.run()
    assert silent.ready()["reason"] == "WaitingForNode"


def test_the_chain_that_held_it_is_gone_and_it_is_allocated_anew() -> None:
    """Told first, in a condition that stays until then; the mapping of the gone chain does not stay."""
    held = allocation(finalized=True, status=STATUSES["granted"])
    cluster = Cluster(held, mapping=MAPPING, answer=NONE_FITS, chain_id="hypermesh-0123456789-00000002")
    step = decide(cluster.world(None))
    assert isinstance(step, flow.Withdraw)
    cluster.do(step)
    step = decide(cluster.world(None))
    cluster.do(step)
    assert cluster.ready()["reason"] == "ChainReplaced"
    assert "Chain hypermesh-0123456789-00000001 held it and is gone" in cluster.ready()["message"]
    assert "proxyAddress" not in cluster.allocation.status
    cluster.run()
    reserved = find(cluster.allocation.status["conditions"], "Reserved")
    assert reserved is not None
    assert (cluster.ready()["reason"], reserved["reason"]) == ("NoAssetFits", "ChainReplaced")
    cluster.answer = None
    cluster.run()
    assert cluster.grant == GRANT
    assert is_true(cluster.allocation.status["conditions"], "Reserved")


@pytest.mark.parametrize("before", ["ended", "expired", "same chain", "ledger away"])
def test_what_was_over_or_is_not_known_to_be_lost_is_not_allocated_anew(before: str) -> None:
    status = STATUSES["ended" if before == "ended" else "granted"]
    cluster = Cluster(allocation(finalized=True, status=status), chain_id="hypermesh-0123456789-00000002")
    cluster.seconds = 7200.0 if before == "expired" else 0.0
    cluster.fresh = before != "ledger away"
    cluster.chain_id = GRANT.chain_id if before == "same chain" else cluster.chain_id
    cluster.run()
    assert cluster.grant is None
    assert (cluster.ready()["reason"] == "WaitingForNode") == (before == "ledger away")


def test_refused_tickets_are_a_matter_of_proven() -> None:
    verdict = Verdict("SpaceTicketStale", "The space ticket is of epoch 3; now is 9.", retry_s=2.0)
    status = statuses.pending(allocation(), verdict, NOW)
    assert find(status["conditions"], "Proven")["reason"] == "SpaceTicketStale"  # type: ignore[index]
