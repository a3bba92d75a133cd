"""Has its node proven itself lately? Without the four tickets the ledger refuses every operation on an asset."""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh_operator.policies.model import Offer, Policy, Request


def refuses(request: Request, offer: Offer) -> bool:
    """True when a ticket of the node is missing or too old."""
    return not offer.proven


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`1 without fresh proofs (node alpha)`."""
    nodes = sorted({offer.candidate.node_name for offer in refused})
    shown = ", ".join(nodes[:3]) + (", …" if len(nodes) > 3 else "")
    return f"{len(refused)} without fresh proofs ({'node' if len(nodes) == 1 else 'nodes'} {shown})"


POLICY = Policy("proof", refuses, summary)
