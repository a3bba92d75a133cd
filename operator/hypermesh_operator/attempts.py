"""One attempt to have an Allocation committed: choose, submit, and on a refusal choose again, a few times.

    Allocation -> Pool.choose -> Submitter -> committed (None) | Verdict (why not, and when to try again)

A refusal teaches: an asset that the ledger refuses is left out for the rest of the attempt, an address that is taken
makes room for the next, a ticket of an epoch just gone is replaced by today's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypermesh.refusals import Reason, Refused
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror, TicketsMissing
from hypermesh_operator import flow, metrics
from hypermesh_operator.objects import Allocation
from hypermesh_operator.policies import chain
from hypermesh_operator.policies.model import Candidate, Request
from hypermesh_operator.pool import Flight, Pool
from hypermesh_operator.statuses import Verdict
from hypermesh_operator.submitting import Submitter

TRIES: Final = 12
OF_THE_ASSET: Final = frozenset(
    {
        Reason.AssetPaused,
        Reason.AssetRetired,
        Reason.InsufficientCapacity,
        Reason.MemoryNotShown,
        Reason.NoSuchAsset,
        Reason.PriceTooHigh,
        Reason.PrivacyForbidden,
        Reason.TrustTooLow,
        *(each for each in Reason if each.startswith(("SpaceTicket", "WorkTicket", "TimeTicket", "MemoryTicket"))),
    }
)
"""Another asset may do."""
OF_THE_MOMENT: Final = frozenset(
    {Reason.Expired, Reason.StakeTicketForeign, Reason.StakeTicketStale, Reason.ValidityTooLong, Reason.WrongChain}
)
"""The same, built anew, may do: on another chain, as soon as our mirror shows it."""
DECIDED_ALREADY: Final = frozenset({Reason.AllocationConflict, Reason.AllocationEnded})
"""The ledger has a record of it, which our mirror is about to show."""
OF_THE_OPERATOR: Final = frozenset(
    {Reason.BadSignature, Reason.CertificateInvalid, Reason.RoleForbidden, Reason.UnknownSigner}
)
"""We must enrol again before anything works."""


class Attempts:
    """`unknown_here` is called when the ledger does not know or trust our key."""

    def __init__(
        self, pool: Pool, submitter: Submitter, mirror: Mirror, cluster_uid: str, unknown_here: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._submitter = submitter
        self._mirror = mirror
        self._cluster_uid = cluster_uid
        self._unknown_here = unknown_here

    def state(self, allocation_id: bytes) -> flow.FlightState:
        """Of the submission under way; one that can no longer be committed is dropped."""
        flight = self._pool.flight(allocation_id)
        if flight is None:
            return flow.FlightState.NONE
        if (
            self._mirror.block_time_ms > flight.operation.valid_until_ms
            and allocation_id not in self._mirror.allocations
        ):
            self._pool.land(allocation_id)
            return flow.FlightState.NONE
        return flow.FlightState.COMMITTED if flight.committed else flow.FlightState.SENT

    async def obtain(self, allocation: Allocation) -> Verdict | None:
        """None when committed."""
        request = Request(allocation.spec, allocation.namespace, self._cluster_uid)
        excluded: set[bytes] = set()
        last: Refused | TicketsMissing | None = None
        address = 0
        for _ in range(TRIES):
            flight = self._pool.flight(allocation.allocation_id)
            if flight is None:
                outcome = self._pool.choose(request, excluded)
                if isinstance(outcome, chain.NoneFits):
                    return _none_fits(outcome, last)
                if not isinstance(outcome, chain.Choice):
                    return Verdict(flow.CONTENDED, "", retry_s=1.0)
                chosen = outcome.offer.candidate
                try:
                    flight = await self._depart(allocation, chosen, address)
                except TicketsMissing as missing:
                    last = missing
                    excluded.add(chosen.asset_id)
                    continue
            try:
                await self._submitter.allocate(flight)
            except LedgerUnavailable as error:
                return Verdict("LedgerUnavailable", str(error), retry_s=1.0, ledger_away=True)
            except Refused as refused:
                self._pool.land(allocation.allocation_id)
                metrics.REFUSALS.labels(refused.reason.value).inc()
                last = refused
                if refused.reason in OF_THE_ASSET:
                    excluded.add(flight.asset_id)
                elif refused.reason is Reason.AddressTaken:
                    address += 1
                elif refused.reason not in OF_THE_MOMENT:
                    return self._final(refused)
            else:
                flight.committed = True
                return None
        return _refused(last, retry_s=5.0)

    async def _depart(self, allocation: Allocation, chosen: Candidate, address: int) -> Flight:
        """Counts as taken from now on, so that others choose around it while it is being signed."""
        flight = self._submitter.prepare(allocation, chosen, address)
        self._pool.depart(flight)
        try:
            await self._submitter.sign(flight)
        except BaseException:
            self._pool.land(allocation.allocation_id)
            raise
        return flight

    def _final(self, refused: Refused) -> Verdict:
        """A refusal that no other choice heals within this attempt."""
        if refused.reason in DECIDED_ALREADY:
            return Verdict(flow.CONTENDED, "", retry_s=1.0)
        if refused.reason in OF_THE_OPERATOR:
            self._unknown_here()
            return _refused(refused, retry_s=5.0)
        return _refused(refused, retry_s=60.0)


def _none_fits(outcome: chain.NoneFits, last: Refused | TicketsMissing | None) -> Verdict:
    """After a refusal the mirror is a moment behind: look again soon rather than tell half the story."""
    if isinstance(last, Refused) and last.reason is Reason.InsufficientCapacity:
        return Verdict(flow.CONTENDED, "", retry_s=0.5)
    if last is not None:
        return _refused(last, retry_s=2.0)
    return Verdict(flow.NO_ASSET_FITS, outcome.message, retry_s=30.0)


def _refused(last: Refused | TicketsMissing | None, retry_s: float) -> Verdict:
    if isinstance(last, Refused):
        return Verdict(last.reason.value, f"{last.message} {last.reason.remedy}", retry_s=retry_s)
    return Verdict("TicketsMissing", str(last or "no ticket was found"), retry_s=retry_s)
