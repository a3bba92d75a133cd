"""Is its node trusted as much as the tenant wants?"""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh_operator.policies.model import Offer, Policy, Request


def refuses(request: Request, offer: Offer) -> bool:
    """True below the tenant's lowest trust score."""
    return offer.candidate.trust < request.spec.min_trust


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`1 below trust score 50 (highest 40)`."""
    highest = max(offer.candidate.trust for offer in refused) // 100
    return f"{len(refused)} below trust score {request.spec.min_trust // 100} (highest {highest})"


POLICY = Policy("trust", refuses, summary)
