"""Does it cost no more than the tenant pays?"""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh import quantities
from hypermesh_operator.policies.model import Offer, Policy, Request, hourly_cost


def refuses(request: Request, offer: Offer) -> bool:
    """True when the asked share costs more an hour than the limit."""
    limit = request.spec.max_price
    return limit is not None and hourly_cost(request, offer.candidate) > limit


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`1 dearer than 0.25 Caesar an hour (cheapest 0.3)`."""
    cheapest = min(hourly_cost(request, offer.candidate) for offer in refused)
    limit = quantities.render_caesar(request.spec.max_price or 0)
    return f"{len(refused)} dearer than {limit} Caesar an hour (cheapest {quantities.render_caesar(cheapest)})"


POLICY = Policy("price", refuses, summary)
