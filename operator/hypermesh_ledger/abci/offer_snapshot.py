"""OfferSnapshot: a peer's snapshot, of a height whose app hash CometBFT's light client has verified."""

from __future__ import annotations

from hypermesh_ledger.core import Core, Restoring
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.snapshots import FORMAT, possible

Answer = abci.ResponseOfferSnapshot


async def offer_snapshot(core: Core, request: abci.RequestOfferSnapshot) -> abci.ResponseOfferSnapshot:
    """Accepted only on an empty state; what a restore before this one left is wiped. Raises StoreUnusable."""
    snapshot = request.snapshot
    if core.store.head.height:
        return Answer(result=Answer.ABORT)
    if snapshot.format != FORMAT:
        return Answer(result=Answer.REJECT_FORMAT)
    if not possible(snapshot.chunks) or not snapshot.height:
        return Answer(result=Answer.REJECT)
    core.store.wipe()
    core.restoring = Restoring(snapshot.height, request.app_hash, snapshot.chunks, set())
    return Answer(result=Answer.ACCEPT)
