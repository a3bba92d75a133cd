"""ApplySnapshotChunk: a chunk is checked against the app hash, and written; the last one makes the state whole."""

from __future__ import annotations

import asyncio

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.snapshots import ChunkRefused, check_chunk

Answer = abci.ResponseApplySnapshotChunk


async def apply_snapshot_chunk(core: Core, request: abci.RequestApplySnapshotChunk) -> abci.ResponseApplySnapshotChunk:
    """A forged chunk is fetched again from somebody else. Raises StoreUnusable.

    The block time of the height is nowhere signed; it is 0 until the next block.
    """
    restoring = core.restoring
    if restoring is None or request.index >= restoring.chunks:
        return Answer(result=Answer.ABORT)
    try:
        asked = request.index, restoring.chunks, restoring.app_hash
        entries = await asyncio.to_thread(check_chunk, request.chunk, *asked)
    except ChunkRefused:
        return Answer(result=Answer.RETRY, refetch_chunks=[request.index], reject_senders=[request.sender])
    core.store.restore(entries)
    restoring.applied.add(request.index)
    if len(restoring.applied) == restoring.chunks:
        core.store.adopt(ledger_pb2.Block(height=restoring.height, app_hash=restoring.app_hash))
        core.restoring, core.restored = None, restoring.height
    return Answer(result=Answer.ACCEPT)
