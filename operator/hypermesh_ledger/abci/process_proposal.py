"""ProcessProposal: is another validator's block well formed? Structure only; what it does is judged by execution.

An accepted block is executed while its votes are counted (see ahead).

Once votes are extended, a block begins with those of its last commit, verified, and shows them nowhere else.
"""

from __future__ import annotations

from hypermesh import operations
from hypermesh.refusals import Refused
from hypermesh_ledger.abci.blocks import block_of
from hypermesh_ledger.abci.commits import votes_of
from hypermesh_ledger.core import Core
from hypermesh_ledger.decoding import decode
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

Answer = abci.ResponseProcessProposal


async def process_proposal(core: Core, request: abci.RequestProcessProposal) -> abci.ResponseProcessProposal:
    """Rejected for wrong or missing votes, and for a transaction that is there twice or not canonical."""
    accept = _acceptable(core, request)
    if accept:
        core.ahead.expect(block_of(request, request.proposed_last_commit))
    else:
        core.metrics.rejected()
    return Answer(status=Answer.ACCEPT if accept else Answer.REJECT)


def _acceptable(core: Core, request: abci.RequestProcessProposal) -> bool:
    txs = list(request.txs)
    if extensions.required(core.base, request.height) and not (txs and _shows_votes(core, request, txs.pop(0))):
        return False
    return len(set(txs)) == len(txs) and all(operations.tx_hash(tx) in core.pool or _well_formed(tx) for tx in txs)


def _shows_votes(core: Core, request: abci.RequestProcessProposal, tx: bytes) -> bool:
    last = request.proposed_last_commit
    try:
        extensions.verified(core.base, core.chain_id, request.height, last.round, votes_of(last.votes), tx)
    except Refused:
        return False
    return True


def _well_formed(tx: bytes) -> bool:
    try:
        decode(tx)
    except Refused:
        return False
    return True
