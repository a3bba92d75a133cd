"""PrepareProposal: our own pool decides what goes into a block; waits for the first transaction while none is there.

    something waits        -> a block of it, at once; no longer than is executed in good time (see pace)
    an epoch or lease due  -> an empty block, at once: that block's time does it
    neither                -> wait for a transaction, for what is due next, or IDLE_S; then an empty block
    somebody is behind us  -> of a lone proposer: at once, and every other block empty (see laggards)

A block's time is when the block before it was agreed, so waiting makes the clock old. Whoever waited longer than
FRESH_S therefore leaves the block empty, and the next one, which follows at once, judges by a clock that is right.
The same after an outage. Empty means: without operations; once votes are extended, every block begins with those of
its last commit. What an idle ledger costs is in docs/concepts/ledger.md.
"""

from __future__ import annotations

import time
from typing import Final

from hypermesh.v1 import votes_pb2
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.execution.schedule import next_due
from hypermesh_ledger.home import IDLE_S
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pb.tendermint.types import validator_pb2
from hypermesh_ledger.pool.lanes import TX_OVERHEAD

FRESH_S: Final = 1.0
"""How old a clock may be by which operations are judged."""
IDLE_WITH_PEERS_S: Final = 1.0
"""Instead of IDLE_S: while a proposer waits so do the others, and how long they take a dead one's silence for it.

Of a lone one that others may join, too: who waited longer than FRESH_S leaves its block empty, and CometBFT's gap would
follow (see laggards).
"""
LEAST_S: Final = 0.05
"""Shortest wait for what is due: other validators' clocks may be behind ours."""
STALE_S: Final = 30
"""After an outage of this length the first block is left empty."""


async def prepare_proposal(core: Core, request: abci.RequestPrepareProposal) -> abci.ResponsePrepareProposal:
    """Never more than max_tx_bytes."""
    first = _votes(request) if extensions.required(core.base, request.height) else []
    room = request.max_tx_bytes - sum(len(tx) + TX_OVERHEAD for tx in first)
    return abci.ResponsePrepareProposal(txs=first + await _operations(core, request, room))


def _votes(request: abci.RequestPrepareProposal) -> list[bytes]:
    """The votes of the block's last commit with what they say, as its first transaction.

    Without a late vote of a liar, which CometBFT counted unseen: with it the block would be nobody's (see `verified`).
    """
    commit = votes_pb2.ExtendedCommit(height=request.height - 1, round=request.local_last_commit.round)
    for each in request.local_last_commit.votes:
        committed = each.block_id_flag == validator_pb2.BLOCK_ID_FLAG_COMMIT
        if committed and extensions.parse(each.vote_extension) is not None:
            address, signature = each.validator.address, each.extension_signature
            commit.votes.add(address=address, extension=each.vote_extension, signature=signature)
    return [extensions.encode(commit)]


async def _operations(core: Core, request: abci.RequestPrepareProposal, room: int) -> list[bytes]:
    block_ms = request.time.seconds * 1000 + request.time.nanos // 1_000_000
    if time.time() - request.time.seconds > STALE_S:
        return []
    started = time.monotonic()
    if core.laggards is not None and core.laggards.holds(started):
        return [] if core.laggards.gap() else core.pool.take(room, block_ms, core.pace.most(len(core.votes)))
    if not len(core.pool) and not await core.pool.filled(_patience(core, block_ms)):
        return []
    if time.monotonic() - started > FRESH_S:
        return []
    return core.pool.take(room, block_ms, core.pace.most(len(core.votes)))


def _patience(core: Core, block_ms: int) -> float:
    """Seconds to wait for a transaction before an empty block of time block_ms."""
    due_ms = next_due(core.base)
    if due_ms <= block_ms:
        return 0.0
    quick = core.pool.gossips or len(core.votes) > 1 or core.laggards is not None
    idle_s = IDLE_WITH_PEERS_S if quick else IDLE_S
    return min(idle_s, max(LEAST_S, due_ms / 1000 - time.time()))
