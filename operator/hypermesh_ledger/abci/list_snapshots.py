"""ListSnapshots: none. As old blocks are pruned, a new validator can only join a chain younger than what is kept."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def list_snapshots(core: Core, request: abci.RequestListSnapshots) -> abci.ResponseListSnapshots:
    """Peers ask for this even when nobody syncs."""
    return abci.ResponseListSnapshots()
