"""ListSnapshots: those on this node's disk, for peers that join. Peers ask even when nobody syncs."""

from __future__ import annotations

import contextlib

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.snapshots import FORMAT


async def list_snapshots(core: Core, request: abci.RequestListSnapshots) -> abci.ResponseListSnapshots:
    """None unless --snapshot-interval says so."""
    answer, taken = abci.ResponseListSnapshots(), core.snapshots
    for height in taken.settled(core.store.head.height):
        with contextlib.suppress(OSError):  # it has just made way for a newer one
            chunks, digest = taken.chunks_of(height), taken.hash_of(height)
            answer.snapshots.add(height=height, format=FORMAT, chunks=chunks, hash=digest)
    return answer
