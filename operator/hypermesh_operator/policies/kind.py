"""Is it the asked kind of hardware? Matters only for an asset asked for by name."""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh.resources import RESOURCE_OF_TYPE
from hypermesh_operator.policies.model import Offer, Policy, Request


def refuses(request: Request, offer: Offer) -> bool:
    """True for an asset of another type."""
    return offer.candidate.type != request.spec.type


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`it is a cpu asset (ask for type: cpu and cores)`."""
    kind = refused[0].candidate.type
    return f"it is a {kind} asset (ask for type: {kind} and {RESOURCE_OF_TYPE[kind]})"


POLICY = Policy("kind", refuses, summary)
