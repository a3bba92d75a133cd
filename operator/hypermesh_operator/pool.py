"""What can be allocated right now: the ledger's assets less what our own submissions under way will take.

    Mirror changes -> candidates (parsed once a change) -> offers -> policies;   flights: submitted, not yet seen

Because flights count as taken, many Allocations at once spread over what is free instead of all asking for the same
asset and being refused; the ledger still judges each. A flight ends when the mirror shows its record, when the ledger
refuses it, when its validity has passed, or when its chain is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hypermesh.resources import ASSET_TYPE_NAMES, AllocationSpec
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_clients.mirror import Mirror
from hypermesh_operator.policies import chain
from hypermesh_operator.policies.model import Candidate, Offer, Request


@dataclass(slots=True)
class Flight:
    """One Allocate on its way, with the exact bytes (once signed), so that asking again cannot reserve twice."""

    allocation_id: bytes
    asset_id: bytes
    amount: int
    operation: ledger_pb2.Operation
    tickets: proofs_pb2.TicketRefs
    envelope: bytes = b""
    committed: bool = False


@dataclass(frozen=True, slots=True)
class Contended:
    """Something fits as soon as submissions under way have failed to take it."""


def candidate(record: ledger_pb2.AssetRecord, node: ledger_pb2.NodeRecord) -> Candidate:
    """One asset as policies see it."""
    registration = record.registration
    body = trust_pb2.CertificateBody.FromString(node.certificate.body)
    return Candidate(
        asset_id=registration.asset_id,
        name=registration.name,
        type=ASSET_TYPE_NAMES[registration.type],
        hardware_id=registration.hardware_id,
        node=record.node,
        node_name=body.subject,
        work_device=registration.work_device,
        capacity=registration.capacity,
        reserved=record.reserved,
        paused=registration.sharing.paused,
        privacy_level=registration.sharing.privacy_level,
        owner_namespaces=frozenset(registration.sharing.owner_namespaces),
        price=int(registration.sharing.price_per_hour or "0"),
        trust=node.trust_score,
        cluster_uid=body.cluster_uid,
    )


class Pool:
    """Follows the mirror. `widened` is called when something may fit now that did not a moment ago."""

    def __init__(self, mirror: Mirror, widened: Callable[[], None] = lambda: None) -> None:
        self._mirror = mirror
        self.widened = widened
        self._candidates: dict[bytes, Candidate] = {}
        self._of_type: dict[str, dict[bytes, Candidate]] = {}
        self._by_name: dict[str, bytes] = {}
        self._of_node: dict[bytes, set[bytes]] = {}
        self._flights: dict[bytes, Flight] = {}
        self._taken: dict[bytes, int] = {}
        mirror.subscribe(self._changed)
        for asset_id in mirror.assets:
            self._refresh(asset_id)

    # -- choosing ----------------------------------------------------------------------------------------------

    def choose(self, request: Request, excluded: Iterable[bytes] = ()) -> chain.Choice | chain.NoneFits | Contended:
        """The asset to ask the ledger for. `excluded`: assets for which it has just refused."""
        barred = frozenset(excluded)
        asked = [item for item in self._asked(request.spec) if item.asset_id not in barred]
        outcome = chain.choose(request, (self._offer(item, self._taken.get(item.asset_id, 0)) for item in asked))
        if isinstance(outcome, chain.Choice) or not self._taken:
            return outcome
        undisturbed = chain.choose(request, (self._offer(item, 0) for item in asked))
        return Contended() if isinstance(undisturbed, chain.Choice) else outcome

    def get(self, asset_id: bytes) -> Candidate | None:
        """The asset as last recorded, retired or not."""
        record = self._mirror.assets.get(asset_id)
        node = self._mirror.nodes.get(record.node) if record is not None else None
        return candidate(record, node) if record is not None and node is not None else None

    def _asked(self, spec: AllocationSpec) -> list[Candidate]:
        if spec.asset_name is None:
            return list(self._of_type.get(spec.type, {}).values())
        asset_id = self._by_name.get(spec.asset_name)
        return [] if asset_id is None else [self._candidates[asset_id]]

    def _offer(self, item: Candidate, taken: int) -> Offer:
        return Offer(item, max(item.capacity - item.reserved - taken, 0), self._proven(item))

    def _proven(self, item: Candidate) -> bool:
        """Whether the node's tickets are young enough for the ledger."""
        view = self._mirror.view
        won = (
            view.tickets.get((proofs_pb2.PROOF_KIND_SPACE, item.node)),
            view.tickets.get((proofs_pb2.PROOF_KIND_TIME, item.node)),
            view.work_tickets.get((item.node, item.work_device)),
        )
        oldest = view.epoch.number - view.genesis.proofs.grace_epochs
        return all(ticket is not None and ticket.epoch >= oldest and not ticket.revoked for ticket in won)

    # -- flights -----------------------------------------------------------------------------------------------

    def flight(self, allocation_id: bytes) -> Flight | None:
        """The submission under way for that allocation."""
        return self._flights.get(allocation_id)

    def depart(self, flight: Flight) -> None:
        """Counts its amount as taken."""
        self._flights[flight.allocation_id] = flight
        self._taken[flight.asset_id] = self._taken.get(flight.asset_id, 0) + flight.amount

    def land(self, allocation_id: bytes) -> None:
        """The submission is over: recorded, refused or lapsed."""
        flight = self._flights.pop(allocation_id, None)
        if flight is None:
            return
        left = self._taken[flight.asset_id] - flight.amount
        if left:
            self._taken[flight.asset_id] = left
        else:
            del self._taken[flight.asset_id]
        self.widened()

    # -- following the mirror ----------------------------------------------------------------------------------

    def _changed(self, change: ledger_pb2.Change) -> None:
        match change.WhichOneof("record"):
            case "allocation":
                self.land(change.allocation.allocation_id)
            case "asset":
                if self._refresh(change.asset.registration.asset_id):
                    self.widened()
            case "node":
                widened = [self._refresh(asset_id) for asset_id in self._of_node.get(change.node.key_id, ())]
                if any(widened):
                    self.widened()
            case "ticket":
                self.widened()
            case "synced":
                self._resynced()

    def _resynced(self) -> None:
        """After a gap everything was told again; on another chain nothing of before is true, nor can be committed."""
        for flight in list(self._flights.values()):
            if flight.operation.chain_id != self._mirror.chain_id:
                self.land(flight.allocation_id)
        for asset_id in self._candidates.keys() | self._mirror.assets.keys():
            self._refresh(asset_id)
        self.widened()

    def _refresh(self, asset_id: bytes) -> bool:
        """Takes the mirror's record over; True when it may fit more than before."""
        record, before = self._mirror.assets.get(asset_id), self._candidates.get(asset_id)
        node = self._mirror.nodes.get(record.node) if record is not None else None
        if record is not None:
            self._of_node.setdefault(record.node, set()).add(asset_id)
        if record is None or node is None or record.retired:
            if before is not None:
                self._drop(asset_id)
            return False
        after = candidate(record, node)
        if before is not None and before.name != after.name:
            self._drop(asset_id)
        self._candidates[asset_id] = after
        self._of_type.setdefault(after.type, {})[asset_id] = after
        self._by_name[after.name] = asset_id
        return before is None or _roomier(before, after)

    def _drop(self, asset_id: bytes) -> None:
        gone = self._candidates.pop(asset_id)
        self._of_type[gone.type].pop(asset_id, None)
        if self._by_name.get(gone.name) == asset_id:
            del self._by_name[gone.name]


def _roomier(before: Candidate, after: Candidate) -> bool:
    if after.capacity - after.reserved > before.capacity - before.reserved:
        return True
    terms = ("paused", "privacy_level", "owner_namespaces", "price", "trust")
    return any(getattr(before, term) != getattr(after, term) for term in terms)
