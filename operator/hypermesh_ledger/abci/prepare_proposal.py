"""PrepareProposal: our own pool decides what goes into a block; waits a moment for the first transaction.

Waiting here makes a lone operation commit at once and an idle ledger make one block a second. A block's time is when
the block before it was agreed; after an outage the first block is therefore left empty, so that no operation is judged
by a clock that stood still.
"""

from __future__ import annotations

import time
from typing import Final

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

PATIENCE_S: Final = 1.0
"""Below CometBFT's timeout_propose."""
STALE_S: Final = 30


async def prepare_proposal(core: Core, request: abci.RequestPrepareProposal) -> abci.ResponsePrepareProposal:
    """Never more than max_tx_bytes."""
    if time.time() - request.time.seconds > STALE_S:
        return abci.ResponsePrepareProposal()
    return abci.ResponsePrepareProposal(txs=await core.pool.take(request.max_tx_bytes, PATIENCE_S))
