"""A block as execution reads it, from what CometBFT says of it: the same of a proposed one and of a decided one."""

from __future__ import annotations

from typing import Final

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.abci.commits import votes_of
from hypermesh_ledger.execution import Block, Lie
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

KINDS: Final = {
    abci.UNKNOWN: ledger_pb2.MISBEHAVIOR_KIND_UNSPECIFIED,
    abci.DUPLICATE_VOTE: ledger_pb2.MISBEHAVIOR_KIND_DUPLICATE_VOTE,
    abci.LIGHT_CLIENT_ATTACK: ledger_pb2.MISBEHAVIOR_KIND_LIGHT_CLIENT_ATTACK,
}


def block_of(request: abci.RequestFinalizeBlock | abci.RequestProcessProposal, last: abci.CommitInfo) -> Block:
    """last: the commit of the block before."""
    time_ms = request.time.seconds * 1000 + request.time.nanos // 1_000_000
    lies = [_lie(each) for each in request.misbehavior]
    return Block(request.height, time_ms, request.hash, list(request.txs), votes_of(last.votes), lies, last.round)


def _lie(found: abci.Misbehavior) -> Lie:
    time_ms = found.time.seconds * 1000 + found.time.nanos // 1_000_000
    return Lie(found.validator.address, KINDS[found.type], found.height, time_ms)
