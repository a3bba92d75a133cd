"""What to do next for one Allocation: a pure function of what Kubernetes, the ledger and the node say right now.

    World -> decide -> Step

The reconciler does the step and asks again, until nothing is left to do. No step relies on one done before: whoever
starts here with an empty memory, at any point, takes up where the last one was killed. The only memory that passes
from step to step is the verdict of an attempt that failed just now.

    finalizer -> allocate -> publish (Secret, ProxyMapping) -> report          released or expired: withdraw -> report
    held by a chain that is gone: withdraw -> report -> allocate -> …
    deleted: release -> forget (finalizer removed), within a bounded time
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final

from hypermesh_operator import statuses
from hypermesh_operator.objects import Allocation, Grant, Mapping
from hypermesh_operator.statuses import Names, Status, Verdict


class FlightState(Enum):
    """SENT: whether it was committed is unknown. COMMITTED: its record is on the way to our mirror."""

    NONE = auto()
    SENT = auto()
    COMMITTED = auto()


@dataclass(frozen=True, slots=True)
class World:
    """Everything a decision rests on.

    grant: the ledger's record, None when it holds none. mapping: the Allocation's own, of whichever grant. doubted: its
    Secret must be looked after again. chain_id: of the ledger's present chain. fresh: the ledger's word is of this
    moment. flight: of our own Allocate, if one is under way. verdict: outcome of the attempt just made. reported_s,
    published_s: seconds since we wrote status, or Secret and mapping; infinite when another process did. busy: many
    other Allocations wait for a worker. now: UTC.
    """

    allocation: Allocation
    grant: Grant | None
    names: Names
    mapping: Mapping | None
    doubted: bool
    chain_id: str
    fresh: bool
    flight: FlightState
    verdict: Verdict | None
    reported_s: float
    published_s: float
    busy: bool
    now: datetime
    release_timeout_s: float


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Nothing is reserved before deletion is sure to release it."""


@dataclass(frozen=True, slots=True)
class Allocate:
    """Choose an asset and have the ledger commit it."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Apply Secret and ProxyMapping of the grant."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Delete the ProxyMapping of a grant that ended."""


@dataclass(frozen=True, slots=True)
class Report:
    """Write status."""

    status: Status


@dataclass(frozen=True, slots=True)
class Release:
    """Have the ledger commit the release."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the finalizer. abandoned: the release is not committed and left to the sweep."""

    abandoned: str | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until something changes, or until so many seconds have passed."""

    seconds: float | None = None


Step = AddFinalizer | Allocate | Publish | Withdraw | Report | Release | Forget | Rest


NO_ASSET_FITS: Final = "NoAssetFits"
"""Its message holds figures that change with every other tenant's move."""
CONTENDED: Final = "Contended"
"""Enough is free but for submissions under way: not told to anybody, they settle within moments."""
FIGURES_EVERY_S: Final = 10.0
TOGETHER_S: Final = 0.25
TOGETHER_BUSY_S: Final = 5.0
"""For so long after publishing the node's report is waited for, to write both at once; a node takes much less."""

LEDGER_AWAY: Final = Verdict(
    "LedgerUnavailable",
    "The ledger does not answer. Check the hypermesh-ledger pods; it is asked again all the time.",
    retry_s=2.0,
    ledger_away=True,
)

STILL_SENT: Final = Verdict(
    "SubmissionPending", "A reservation was submitted, and whether it is committed is not known yet.", retry_s=0.5
)


def decide(world: World) -> Step:
    """The next step."""
    if world.allocation.deleted_at is not None:
        return _delete(world)
    if world.grant is not None:
        return _use(world, world.grant) if world.grant.active else _end(world, world.grant)
    if statuses.was_granted(world.allocation) and world.fresh:
        return _lose(world) or _end(world, None)
    if not world.allocation.finalized:
        return AddFinalizer()
    return _obtain(world)


def _obtain(world: World) -> Step:
    verdict = world.verdict
    if verdict is None and not world.fresh:
        verdict = LEDGER_AWAY
    if verdict is None:
        return Rest(2.0) if world.flight is FlightState.COMMITTED else Allocate()
    if verdict.reason == CONTENDED:
        return Rest(verdict.retry_s)
    if statuses.was_granted(world.allocation):  # the ledger is away: what stands in status was true and may be still
        return Rest(verdict.retry_s)
    return _report(world, statuses.pending(world.allocation, verdict, world.now), verdict.retry_s)


def _use(world: World, grant: Grant) -> Step:
    if not world.allocation.finalized:
        return AddFinalizer()
    verdict, mapping = world.verdict, world.mapping
    if mapping is not None and not mapping.shows(grant, world.allocation.uid):
        mapping = None
    if verdict is None and (mapping is None or world.doubted or _unsure(world)):
        return Publish(grant)
    if verdict is None and (pause := _until_the_node_reports(world, mapping)) > 0:
        return Rest(pause)
    status = statuses.granted(world.allocation, grant, world.names, mapping, verdict, world.now)
    return _report(world, status, verdict.retry_s if verdict is not None else None)


def _unsure(world: World) -> bool:
    """Another process told of trouble with the Secret, and this one has not looked yet."""
    return math.isinf(world.published_s) and statuses.tells_of_publishing(world.allocation.status)


def _until_the_node_reports(world: World, mapping: Mapping | None) -> float:
    """Seconds for which a status that would only say Reserved is left out: moments later Ready says more."""
    if mapping is not None and (mapping.programmed or mapping.reason):
        return 0.0
    return (TOGETHER_BUSY_S if world.busy else TOGETHER_S) - world.published_s


def _end(world: World, grant: Grant | None) -> Step:
    if world.mapping is not None and world.verdict is None:
        return Withdraw()
    retry = world.verdict.retry_s if world.verdict is not None else None
    return _report(world, statuses.ended(world.allocation, grant, world.names, world.now), retry)


def _lose(world: World) -> Step | None:
    """Its chain is gone, what the tenant wants is not: once that is told, it goes the whole way again."""
    status = statuses.lost(world.allocation, world.chain_id, world.now)
    if status is None:
        return None
    return Withdraw() if world.mapping is not None and world.verdict is None else Report(status)


def _delete(world: World) -> Step:
    allocation = world.allocation
    if not allocation.finalized:
        return Rest()
    verdict = world.verdict
    if world.fresh and (world.grant is None or not world.grant.active):
        if world.flight is FlightState.NONE:
            return Forget()
        verdict = STILL_SENT
    if verdict is None and not world.fresh:
        verdict = LEDGER_AWAY
    if verdict is None:
        return Release(world.grant) if world.grant is not None else Rest()
    give_up = datetime.fromtimestamp(allocation.deleted_at or 0.0, UTC) + timedelta(seconds=world.release_timeout_s)
    if world.now >= give_up:
        return Forget(abandoned=verdict.message)
    retry = min(verdict.retry_s or 5.0, max((give_up - world.now).total_seconds(), 0.1))
    return _report(world, statuses.releasing(allocation, verdict, give_up, world.now), retry)


def _report(world: World, status: Status, retry_s: float | None) -> Step:
    """Status is written when it says something new; figures alone are news only once in a while."""
    present = world.allocation.status
    if present == status:
        return Rest(retry_s)
    if _only_figures_differ(present, status) and world.reported_s < FIGURES_EVERY_S:
        return Rest(min(retry_s or FIGURES_EVERY_S, FIGURES_EVERY_S - world.reported_s))
    return Report(status)


def _only_figures_differ(present: Status, wanted: Status) -> bool:
    before, after = statuses.ready(present), statuses.ready(wanted)
    return (
        before is not None
        and after is not None
        and before.reason == after.reason == NO_ASSET_FITS
        and present.get("observedGeneration") == wanted.get("observedGeneration")
    )
