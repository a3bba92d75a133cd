"""Query: one value of the committed state by its key, for tools that speak to CometBFT's RPC.

Path `/store/ledger/key`. Proofs of the value are not served here; the app hash is made so that they can be.
"""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

PATH = "/store/ledger/key"


async def query(core: Core, request: abci.RequestQuery) -> abci.ResponseQuery:
    """Code 1 for what can't be answered, with the reason in the log."""
    if request.path != PATH or request.prove:
        log = f"ask for path {PATH} without a proof, not for {request.path!r}"
        return abci.ResponseQuery(code=1, codespace="hypermesh", log=log)
    value = core.store.snapshot.get(request.data) if request.data else None
    return abci.ResponseQuery(key=request.data, value=value or b"", height=core.store.head.height)
