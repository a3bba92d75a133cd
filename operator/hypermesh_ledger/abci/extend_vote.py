"""ExtendVote: what this validator says beside its vote. Answered at once with what is ready; nothing is waited for.

The block waits for this answer, so whatever goes wrong here costs the extension and never the vote.
"""

from __future__ import annotations

import logging

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

_log = logging.getLogger(__name__)


async def extend_vote(core: Core, request: abci.RequestExtendVote) -> abci.ResponseExtendVote:
    """Empty when it can't be made."""
    try:
        return abci.ResponseExtendVote(vote_extension=core.extension())
    except Exception:  # noqa: BLE001 - a vote that is not cast would stop the chain with others
        _log.exception("no vote extension at height %d", request.height)
        core.metrics.unextended()
        return abci.ResponseExtendVote()
