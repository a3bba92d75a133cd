"""InitChain: the genesis becomes the first state. Nothing is written before the first block is committed."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.genesis import initial_state
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.state import Memory


async def init_chain(core: Core, request: abci.RequestInitChain) -> abci.ResponseInitChain:
    """Raises GenesisInvalid."""
    entries = initial_state(request.chain_id, request.app_state_bytes)
    core.born = Memory(entries)
    prepared = core.store.prepare(0, 0, dict(entries))
    return abci.ResponseInitChain(app_hash=prepared.head.app_hash)
