"""InsertTx: a transaction from a peer's mempool. Dropped: ledgers tell each other by streams (see hearing)."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def insert_tx(_: Core, __: abci.RequestInsertTx) -> abci.ResponseInsertTx:
    """Code 0: whoever tells it, a ledger of an older version or a stranger, is not told more."""
    return abci.ResponseInsertTx()
