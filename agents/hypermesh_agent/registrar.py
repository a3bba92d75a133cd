"""Brings the ledger to what the node has: makes the plan again after every change, and does its deeds one by one.

Woken by a survey, an owner's edit, or a change of this node's records. A deed that the ledger refuses is told in the
Asset's conditions and tried again after a growing pause; other assets go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror, TicketsMissing

from .directory import AssetDirectory, NodeAsset
from .hardware import Kind
from .identity import NodeIdentity
from .registration import Deed, plan
from .submitting import Submitter
from .views import Problem

_log = logging.getLogger(__name__)

PAUSE_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RECHECK_S: Final = 60.0
SEEN_S: Final = 10.0
WAITING: Final = "WaitingForTickets"
STALE: Final = frozenset(
    {Reason.SpaceTicketStale, Reason.StakeTicketStale, Reason.WorkTicketStale, Reason.TimeTicketStale}
)


@dataclass(slots=True)
class _Attempts:
    count: int = 0
    not_before: float = 0.0


class Registrar:
    """`run()` for ever; `wake()` after anything that may change the plan.

    sharing: what owners want, by asset id. unknown: kinds whose probe fails now. changed: called after every outcome.
    offer: an asset with the capacity that can be registered now, or None when nothing can yet.
    """

    def __init__(
        self,
        mirror: Mirror,
        submitter: Submitter,
        identity: NodeIdentity,
        directory: AssetDirectory,
        sharing: Callable[[], Mapping[bytes, ledger_pb2.Sharing]],
        unknown: Callable[[], Collection[Kind]],
        changed: Callable[[], None],
        offer: Callable[[NodeAsset], NodeAsset | None] = lambda asset: asset,
    ) -> None:
        self._mirror = mirror
        self._submitter = submitter
        self._identity = identity
        self._directory = directory
        self._sharing = sharing
        self._unknown = unknown
        self._changed = changed
        self._offer = offer
        self._counters: dict[bytes, int] = {}
        self._attempts: dict[bytes, _Attempts] = {}
        self._wake = asyncio.Event()
        self.problems: dict[bytes, Problem] = {}
        """Why the last deed for an asset failed, by asset id; gone once one succeeds or none is due."""

    def wake(self) -> None:
        self._wake.set()

    def plan(self) -> list[Deed]:
        """What is due now."""
        return plan(
            self._identity,
            [asset for asset in map(self._offer, self._directory) if asset is not None],
            self._mirror.assets,
            self._sharing(),
            self._counters,
            self._unknown(),
        )

    async def run(self) -> None:
        await self._mirror.synced.wait()
        while True:
            self._wake.clear()
            wait = await self._round()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _round(self) -> float:
        """Does every deed whose pause is over; returns seconds until the next is due."""
        due = self.plan()
        self._forget({deed.asset_id for deed in due})
        wait = RECHECK_S
        for deed in due:
            attempts = self._attempts.setdefault(deed.asset_id, _Attempts())
            left = attempts.not_before - time.monotonic()
            if left <= 0:
                await self._do(deed, attempts)
                left = attempts.not_before - time.monotonic()
            wait = min(wait, max(left, 0.05))
        return wait

    async def _do(self, deed: Deed, attempts: _Attempts) -> None:
        try:
            refs = self._mirror.ticket_refs(self._identity.key_id, deed.work_device, self._identity.key_id)
            commit = await self._submitter.submit(_operation(deed), refs)
            await self._mirror.wait_until(lambda: self._mirror.height >= commit.height, SEEN_S)
        except Refused as refusal:
            if refusal.reason is Reason.AddressTaken:
                self._counters[deed.asset_id] = self._counters.get(deed.asset_id, 0) + 1
            self._failed(deed, attempts, Problem(str(refusal.reason), f"{refusal.message} {refusal.reason.remedy}"))
        except TicketsMissing as error:
            self._failed(deed, attempts, Problem(WAITING, str(error)))
        except (LedgerUnavailable, TimeoutError) as error:
            self._failed(deed, attempts, Problem("LedgerUnavailable", str(error) or "the commit was not seen in time"))
        else:
            _log.info("%s: %s is committed at height %d", deed.name, type(deed.operation).__name__, commit.height)
            self._attempts.pop(deed.asset_id, None)
            self.problems.pop(deed.asset_id, None)
            self._changed()

    def _failed(self, deed: Deed, attempts: _Attempts, problem: Problem) -> None:
        before = self.problems.get(deed.asset_id)
        if before is None or before.reason != problem.reason:
            level = logging.INFO if problem.reason == WAITING else logging.WARNING
            _log.log(level, "%s: %s: %s", deed.name, type(deed.operation).__name__, problem.message)
        self.problems[deed.asset_id] = problem
        attempts.not_before = time.monotonic() + PAUSE_S[min(attempts.count, len(PAUSE_S) - 1)]
        attempts.count += 1
        self._changed()

    def _forget(self, due: set[bytes]) -> None:
        """Pauses and problems of assets that need nothing any more."""
        for asset_id in [*self._attempts]:
            if asset_id not in due:
                self._attempts.pop(asset_id)
                if self.problems.pop(asset_id, None) is not None:
                    self._changed()

    def tickets_arrived(self) -> None:
        """New tickets end the pauses of what waited for them."""
        for asset_id, problem in self.problems.items():
            if problem.reason == WAITING or problem.reason in STALE:
                self._attempts.pop(asset_id, None)
        self.wake()


def _operation(deed: Deed) -> ledger_pb2.Operation:
    match deed.operation:
        case ledger_pb2.RegisterAsset():
            return ledger_pb2.Operation(register_asset=deed.operation)
        case ledger_pb2.UpdateAsset():
            return ledger_pb2.Operation(update_asset=deed.operation)
        case _:
            return ledger_pb2.Operation(retire_asset=deed.operation)
