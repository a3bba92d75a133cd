"""LoadSnapshotChunk: one chunk for a peer that joins."""

from __future__ import annotations

import asyncio

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.snapshots import FORMAT


async def load_snapshot_chunk(core: Core, request: abci.RequestLoadSnapshotChunk) -> abci.ResponseLoadSnapshotChunk:
    """Empty when there is none (any more): CometBFT then tells the peer that it is missing."""
    if request.format != FORMAT:
        return abci.ResponseLoadSnapshotChunk()
    try:
        chunk = await asyncio.to_thread(core.snapshots.chunk, request.height, request.chunk)
    except OSError:
        return abci.ResponseLoadSnapshotChunk()
    return abci.ResponseLoadSnapshotChunk(chunk=chunk)
