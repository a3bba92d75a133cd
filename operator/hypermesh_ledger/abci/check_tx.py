"""CheckTx: a transaction that somebody gave to CometBFT's RPC. Refused: the ledger's service is where they come in."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def check_tx(_: Core, __: abci.RequestCheckTx) -> abci.ResponseCheckTx:
    """Code 1."""
    return abci.ResponseCheckTx(code=1, codespace="hypermesh", log="Submit it to the ledger's service (gRPC).")
