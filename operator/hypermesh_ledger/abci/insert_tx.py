"""InsertTx: a transaction from a peer. Answered at once, checked in the background: the answer holds up the peer."""

from __future__ import annotations

from hypermesh_ledger.abci.check_tx import RETRY_CODE
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def insert_tx(core: Core, request: abci.RequestInsertTx) -> abci.ResponseInsertTx:
    """Code 0, or RETRY_CODE while too many are being checked; why one is dropped later, a peer does not learn."""
    return abci.ResponseInsertTx(code=0 if core.inbox.offer(request.tx) else RETRY_CODE)
