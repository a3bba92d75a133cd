"""CheckTx: a transaction that somebody gave to CometBFT's RPC; admitted like any client's, answered when checked."""

from __future__ import annotations

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

RETRY_CODE = 32_000
"""CometBFT forgets a transaction refused with this code or a higher one, so that it can be sent again."""


async def check_tx(core: Core, request: abci.RequestCheckTx) -> abci.ResponseCheckTx:
    """Code 0 when pooled; else the reason in data and the sentence in the log."""
    try:
        await core.admission.admit(request.tx, operations.tx_hash(request.tx))
    except Refused as refusal:
        code = RETRY_CODE if refusal.reason is Reason.MempoolFull else 1
        return abci.ResponseCheckTx(code=code, codespace="hypermesh", data=refusal.reason.encode(), log=refusal.message)
    return abci.ResponseCheckTx()
