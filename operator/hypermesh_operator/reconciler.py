"""The hands of the operator: gathers the world of one Allocation, asks `flow.decide`, does the step, asks again.

    watch events, mirror changes -> uids -> WorkQueue -> turn(uid): World -> Step -> API server | ledger

Everything here can be killed between any two awaits; the next turn, of this process or the next, begins from what
the API server and the ledger hold.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hypermesh.conditions import is_true
from hypermesh.refusals import Reason, Refused
from hypermesh.resources import OPERATOR_MANAGER
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import Conflict, Kube, KubeError, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror, TicketsMissing
from hypermesh_operator import flow, manifests, metrics
from hypermesh_operator.announcing import Announcer
from hypermesh_operator.attempts import Attempts
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.pool import Pool
from hypermesh_operator.publishing import Publisher
from hypermesh_operator.statuses import Names, Status, Verdict
from hypermesh_operator.submitting import Submitter
from hypermesh_operator.workqueue import WorkQueue

_log = logging.getLogger(__name__)

FRESH_S: Final = 6.0
"""A mirror that heard nothing for longer is not believed; the ledger speaks every second."""
MAX_STEPS: Final = 32
MAX_BACKOFF_S: Final = 60.0
WAKE_AFTER_S: Final = 0.05
BUSY: Final = 20
"""More Allocations than this waiting or worked on are a load."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything the reconciler works with."""

    kube: Kube
    mirror: Mirror
    pool: Pool
    attempts: Attempts
    submitter: Submitter
    publisher: Publisher
    announcer: Announcer
    inventory: Inventory
    release_timeout_s: float


class Reconciler:
    """`run` works the queue; `touch` and the mirror fill it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._queue = WorkQueue()
        self._waiting: set[str] = set()
        self._failures: dict[str, int] = {}
        self._waking: asyncio.TimerHandle | None = None
        tools.mirror.subscribe(self._ledger_changed)

    # -- what wakes it ---------------------------------------------------------------------------------------------

    def touch(self, uid: str) -> None:
        """Something about that Allocation changed."""
        self._queue.add(uid)

    def advance(self, uid: str) -> None:
        """What it waited for has come: its ledger record, or its node's report."""
        self._queue.add(uid, urgent=True)

    def gone(self, uid: str) -> None:
        """The resource is gone; what the ledger may still hold for it is the sweep's."""
        self._queue.forget(uid)
        self._waiting.discard(uid)
        self._failures.pop(uid, None)

    def widened(self) -> None:
        """Something may fit now: those that wait look again, the oldest first, soon and all at once."""
        if self._waiting and self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(WAKE_AFTER_S, self._wake)

    def _wake(self) -> None:
        self._waking = None
        inventory = self._tools.inventory
        waiting = [item for uid in self._waiting if (item := inventory.allocation(uid)) is not None]
        for item in sorted(waiting, key=lambda item: (item.created, item.uid)):
            self._queue.add(item.uid)

    def _ledger_changed(self, change: ledger_pb2.Change) -> None:
        match change.WhichOneof("record"):
            case "allocation":
                allocation_id = change.allocation.allocation_id
            case "allocation_gone":
                allocation_id = change.allocation_gone
            case _:
                return
        uid = self._tools.inventory.uid_of(allocation_id)
        if uid is not None:
            self.advance(uid)

    # -- working ---------------------------------------------------------------------------------------------------

    async def run(self, workers: int) -> None:
        """For ever, with so many Allocations side by side."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            async with self._queue.next() as uid:
                metrics.QUEUED.set(len(self._queue))
                try:
                    await self.turn(uid)
                    self._failures.pop(uid, None)
                except Exception as error:  # noqa: BLE001 - one Allocation's trouble must not stop the others
                    self._failed(uid, error)

    def _failed(self, uid: str, error: Exception) -> None:
        """Tries again, ever later; the API server's troubles are ordinary, anything else is ours."""
        count = self._failures[uid] = self._failures.get(uid, 0) + 1
        delay = min(0.2 * 2 ** min(count, 16), MAX_BACKOFF_S) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        metrics.FAILURES.inc()
        allocation = self._tools.inventory.allocation(uid)
        name = allocation.reference if allocation is not None else uid
        expected = isinstance(error, KubeError)
        _log.warning("Allocation %s: %s; again in %.1f s", name, error, delay, exc_info=None if expected else error)
        self._queue.add_after(uid, delay)

    async def turn(self, uid: str, limit: int = MAX_STEPS) -> int:
        """Steps until nothing is left to do, at most `limit`; returns how many were done."""
        verdict: Verdict | None = None
        for done in range(limit):
            world = self._world(uid, verdict)
            if world is None:
                return done
            step = flow.decide(world)
            if isinstance(step, flow.Rest):
                if step.seconds is not None:
                    self._queue.add_after(uid, step.seconds)
                return done
            metrics.STEPS.labels(type(step).__name__).inc()
            try:
                verdict = await self._do(world, step) or (verdict if isinstance(step, flow.Report) else None)
            except (NotFound, Conflict) as error:
                _log.debug("Allocation %s changed under us: %s", world.allocation.reference, error)
                self._queue.add_after(uid, 1.0)  # the watch tells sooner what became of it
                return done + 1
        self._queue.add_after(uid, 0.1)
        return limit

    def _world(self, uid: str, verdict: Verdict | None) -> flow.World | None:
        tools = self._tools
        allocation = tools.inventory.allocation(uid)
        if allocation is None:
            return None
        record = tools.mirror.allocations.get(allocation.allocation_id)
        grant = tools.inventory.grant(allocation, record)
        mapping = tools.inventory.mapping(allocation)
        own = mapping if mapping is not None and mapping.owner == uid else None
        ledger = allocation.status.get("ledger") or {}
        same_chain = ledger.get("chainID", tools.mirror.chain_id) == tools.mirror.chain_id
        height = ledger.get("height", 0) if same_chain else 0  # heights of two chains say nothing of each other
        return flow.World(
            allocation=allocation,
            grant=grant,
            names=self._names(grant),
            mapping=own,
            chain_id=tools.mirror.chain_id,
            doubted=tools.inventory.doubted(uid),
            fresh=tools.mirror.age() < FRESH_S and tools.mirror.height >= height,
            flight=tools.attempts.state(allocation.allocation_id),
            verdict=verdict,
            reported_s=tools.inventory.reported_s(uid),
            published_s=tools.inventory.published_s(uid),
            busy=self._queue.load() > BUSY,
            now=datetime.now(UTC),
            release_timeout_s=tools.release_timeout_s,
        )

    def _names(self, grant: Grant | None) -> Names:
        asset = self._tools.pool.get(grant.asset_id) if grant is not None else None
        return Names(asset.name, asset.node_name) if asset is not None else Names("", "")

    # -- steps -----------------------------------------------------------------------------------------------------

    async def _do(self, world: flow.World, step: flow.Step) -> Verdict | None:
        allocation = world.allocation
        match step:
            case flow.AddFinalizer():
                await self._add_finalizer(allocation)
            case flow.Allocate():
                return await self._allocate(allocation)
            case flow.Publish(grant):
                return await self._tools.publisher.publish(allocation, grant, world.names)
            case flow.Withdraw():
                await self._tools.publisher.withdraw(allocation)
            case flow.Report(status):
                await self._report(allocation, status)
            case flow.Release(grant):
                return await self._release(grant)
            case flow.Forget(abandoned):
                await self._forget(allocation, abandoned)
        return None

    async def _add_finalizer(self, allocation: Allocation) -> None:
        body = manifests.with_finalizer(allocation)
        self._tools.inventory.see(await self._tools.kube.apply(ALLOCATIONS, body, field_manager=OPERATOR_MANAGER))

    async def _allocate(self, allocation: Allocation) -> Verdict | None:
        verdict = await self._tools.attempts.obtain(allocation)
        if verdict is not None and verdict.reason in (flow.NO_ASSET_FITS, flow.CONTENDED):
            self._waiting.add(allocation.uid)
        else:
            self._waiting.discard(allocation.uid)
        metrics.WAITING.set(len(self._waiting))
        return verdict

    async def _report(self, allocation: Allocation, status: Status) -> None:
        before = allocation.status
        answer = await self._tools.kube.merge_patch(
            ALLOCATIONS,
            allocation.name,
            manifests.status(allocation, status),
            allocation.namespace,
            subresource="status",
            field_manager=OPERATOR_MANAGER,
        )
        self._tools.inventory.see(answer)
        self._tools.inventory.reported(allocation.uid)
        self._tools.announcer.transition(allocation, before, status)
        conditions = (before.get("conditions") or (), status["conditions"])
        if is_true(conditions[1], "Ready") and not is_true(conditions[0], "Ready"):
            metrics.READY_SECONDS.observe(max(time.time() - _seconds(allocation.created), 0.0))

    async def _release(self, grant: Grant) -> Verdict | None:
        try:
            await self._tools.submitter.release(grant)
        except LedgerUnavailable as error:
            return Verdict("LedgerUnavailable", str(error), retry_s=1.0, ledger_away=True)
        except Refused as refused:
            if refused.reason not in (Reason.AllocationEnded, Reason.NoSuchAllocation):
                metrics.REFUSALS.labels(refused.reason.value).inc()
                return Verdict(refused.reason.value, f"{refused.message} {refused.reason.remedy}", retry_s=2.0)
        except TicketsMissing as error:
            return Verdict("TicketsMissing", str(error), retry_s=2.0)
        try:
            await self._tools.mirror.wait_until(lambda: not self._held(grant.allocation_id), 5.0)
        except TimeoutError:
            return Verdict("LedgerUnavailable", "The release is committed; its record has not come yet.", 1.0)
        return None

    def _held(self, allocation_id: bytes) -> bool:
        record = self._tools.mirror.allocations.get(allocation_id)
        return record is not None and record.state == ledger_pb2.ALLOCATION_STATE_ACTIVE

    async def _forget(self, allocation: Allocation, abandoned: str | None) -> None:
        if abandoned is not None:
            _log.warning("Allocation %s goes before its release is committed: %s", allocation.reference, abandoned)
            note = f"Deleted before the ledger committed the release, which is left to the sweep: {abandoned}"
            self._tools.announcer.say(allocation, "ReleaseLeftToSweep", note, "Release", warning=True)
        patch = manifests.without_finalizer(allocation)
        await self._tools.kube.merge_patch(
            ALLOCATIONS, allocation.name, patch, allocation.namespace, field_manager=OPERATOR_MANAGER
        )
        # Gone, or soon; what others' finalizers still hold, the watch shows.
        self._tools.inventory.lose(allocation.uid)


def _seconds(created: str) -> float:
    return datetime.fromisoformat(created).timestamp() if created else time.time()
