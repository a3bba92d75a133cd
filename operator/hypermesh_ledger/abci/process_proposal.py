"""ProcessProposal: is another validator's block well formed? Structure only; what it does is judged by execution."""

from __future__ import annotations

from hypermesh import operations
from hypermesh.refusals import Refused
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def process_proposal(core: Core, request: abci.RequestProcessProposal) -> abci.ResponseProcessProposal:
    """Rejected when a transaction is not canonical (those in the pool are), or is there twice."""
    accept = len(set(request.txs)) == len(request.txs) and all(
        operations.tx_hash(tx) in core.pool or _well_formed(tx) for tx in request.txs
    )
    status = abci.ResponseProcessProposal.ACCEPT if accept else abci.ResponseProcessProposal.REJECT
    return abci.ResponseProcessProposal(status=status)


def _well_formed(tx: bytes) -> bool:
    try:
        operations.decode(tx)
    except Refused:
        return False
    return True
