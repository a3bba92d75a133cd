"""The chain: every policy in order over every offer; the best that passes all, or why none does.

Best is the cheapest, then the one left emptiest (which spreads load), then the lowest id, so that the same records
always give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from hypermesh_operator.policies import fit, kind, price, privacy, proof, trust
from hypermesh_operator.policies.model import Offer, Policy, Request, hourly_cost

CHAIN: Final[tuple[Policy, ...]] = (
    kind.POLICY,
    fit.POLICY,
    privacy.POLICY,
    trust.POLICY,
    price.POLICY,
    proof.POLICY,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The asset to ask the ledger for."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class NoneFits:
    """No asset passes; message is for the tenant."""

    message: str


def choose(request: Request, offers: Iterable[Offer]) -> Choice | NoneFits:
    """`offers` are of the asked type (and name, when one is asked for)."""
    passed: list[Offer] = []
    refused: dict[str, list[Offer]] = {}
    for offer in offers:
        policy = next((policy for policy in CHAIN if policy.refuses(request, offer)), None)
        if policy is None:
            passed.append(offer)
        else:
            refused.setdefault(policy.name, []).append(offer)
    if passed:
        return Choice(min(passed, key=lambda offer: _rank(request, offer)))
    return NoneFits(_sentence(request, refused))


def _rank(request: Request, offer: Offer) -> tuple[int, Fraction, bytes]:
    left = Fraction(offer.free - request.spec.amount, max(offer.candidate.capacity, 1))
    return hourly_cost(request, offer.candidate), -left, offer.candidate.asset_id


def _sentence(request: Request, refused: dict[str, list[Offer]]) -> str:
    kind, name = request.spec.type, request.spec.asset_name
    if not refused:
        if name is not None:
            return f"no {kind} asset named {name} is registered on the ledger; see kubectl get assets"
        return f"no {kind} asset is registered on the ledger; see kubectl get assets"
    reasons = [policy.summary(request, refused[policy.name]) for policy in CHAIN if policy.name in refused]
    subject = f"asset {name} does not fit" if name is not None else f"no {kind} asset fits"
    return f"{subject}: {', '.join(reasons)}"
