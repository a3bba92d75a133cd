"""Is there enough of it free?"""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh import quantities
from hypermesh_operator.policies.model import Offer, Policy, Request


def refuses(request: Request, offer: Offer) -> bool:
    """True when less is free than asked for."""
    return offer.free < request.spec.amount


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`2 too small (largest free 1Gi)`."""
    largest = max(offer.free for offer in refused)
    return f"{len(refused)} too small (largest free {quantities.render_short(request.spec.resource, largest)})"


POLICY = Policy("fit", refuses, summary)
