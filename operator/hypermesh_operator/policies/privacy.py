"""May this tenant use it? The owner's word against the tenant's, by the ledger's rule.

Asked Private: any asset of the tenant's own cluster. Asked otherwise: an asset shared at exactly that level. A Private
asset serves its own cluster only, and only the owner's namespaces where they are named.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh.resources import PRIVACY_LEVEL_NAMES
from hypermesh.v1 import ledger_pb2
from hypermesh_operator.policies.model import Offer, Policy, Request

_PRIVATE = ledger_pb2.PRIVACY_LEVEL_PRIVATE


def refuses(request: Request, offer: Offer) -> bool:
    """True when the asset is paused, private to others, or shared at another level."""
    return _why(request, offer) is not None


def summary(request: Request, refused: Sequence[Offer]) -> str:
    """`1 private to others, 1 shared as Public, 2 paused by their owner`."""
    counts: dict[str, int] = {}
    for offer in refused:
        why = _why(request, offer) or ""
        counts[why] = counts.get(why, 0) + 1
    return ", ".join(f"{count} {why}" for why, count in sorted(counts.items()))


def _why(request: Request, offer: Offer) -> str | None:
    asset, asked = offer.candidate, request.spec.privacy_level
    if asset.privacy_level == _PRIVATE:
        barred = bool(asset.owner_namespaces) and request.namespace not in asset.owner_namespaces
        if barred or asset.cluster_uid != request.cluster_uid:
            return "private to others"
    if asked == _PRIVATE and asset.cluster_uid != request.cluster_uid:
        return "of other clusters"
    if asked not in (asset.privacy_level, _PRIVATE):
        return f"shared as {PRIVACY_LEVEL_NAMES.get(asset.privacy_level, 'unknown')}"
    return "paused by the owner" if asset.paused else None


POLICY = Policy("privacy", refuses, summary)
