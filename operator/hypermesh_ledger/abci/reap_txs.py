"""ReapTxs: what CometBFT should tell its peers; each transaction once, and again while it waits for long."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def reap_txs(core: Core, request: abci.RequestReapTxs) -> abci.ResponseReapTxs:
    """Transactions admitted since the last call, and some of those that wait."""
    return abci.ResponseReapTxs(txs=core.pool.reap(request.max_bytes))
