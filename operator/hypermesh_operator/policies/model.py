"""What policies look at: the tenant's request, and each asset with what is free of it right now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypermesh import quantities
from hypermesh.resources import AllocationSpec


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what. cluster_uid is the cluster of the asking operator."""

    spec: AllocationSpec
    namespace: str
    cluster_uid: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One registered asset and its node, as the ledger records them.

    capacity and reserved in base units, price in grains an hour for all of it, trust 0-10000.
    """

    asset_id: bytes
    name: str
    type: str
    hardware_id: str
    node: bytes
    node_name: str
    work_device: bytes
    capacity: int
    reserved: int
    paused: bool
    privacy_level: int
    owner_namespaces: frozenset[str]
    price: int
    trust: int
    cluster_uid: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate at this moment.

    free: what neither the ledger nor a submission under way holds. proven: its node's tickets are fresh.
    """

    candidate: Candidate
    free: int
    proven: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """One rule. `refuses` judges one offer; `summary` tells of all that it refused, beginning with their number."""

    name: str
    refuses: Callable[[Request, Offer], bool]
    summary: Callable[[Request, Sequence[Offer]], str]


def hourly_cost(request: Request, candidate: Candidate) -> int:
    """Grains an hour for the asked share of the asset, rounded up: the ledger's rule."""
    if candidate.capacity == 0:
        return candidate.price
    return quantities.hourly_price(candidate.price, request.spec.amount, candidate.capacity)
