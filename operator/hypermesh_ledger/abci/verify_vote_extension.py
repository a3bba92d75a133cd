"""VerifyVoteExtension: may another validator say this? By the bytes alone, so that all validators answer alike.

Who refuses an extension refuses the vote; answers that differed from machine to machine could stop the chain.
"""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

Answer = abci.ResponseVerifyVoteExtension


async def verify_vote_extension(
    core: Core, request: abci.RequestVerifyVoteExtension
) -> abci.ResponseVerifyVoteExtension:
    """Size and form; that the validator signed it, CometBFT has checked."""
    good = extensions.parse(request.vote_extension) is not None
    return Answer(status=Answer.ACCEPT if good else Answer.REJECT)
