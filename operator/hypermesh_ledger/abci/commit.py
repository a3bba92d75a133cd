"""Commit: the executed block becomes durable in one LMDB transaction; then everybody who waits is told."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def commit(core: Core, request: abci.RequestCommit) -> abci.ResponseCommit:
    """Raises StoreUnusable on a full disk."""
    head = await core.commit()
    return abci.ResponseCommit(retain_height=core.retention.after(head.height, head.time_ms))
