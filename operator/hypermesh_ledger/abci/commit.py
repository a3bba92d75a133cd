"""Commit: the executed block becomes durable in one LMDB transaction; then everybody who waits is told."""

from __future__ import annotations

from typing import Final

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

RETAINED_BLOCKS: Final = 10_000
"""CometBFT may forget older blocks: the state holds all that they did (80 MB, an hour and more of idle blocks)."""


async def commit(core: Core, request: abci.RequestCommit) -> abci.ResponseCommit:
    """Raises StoreUnusable on a full disk."""
    head = await core.commit()
    return abci.ResponseCommit(retain_height=max(0, head.height - RETAINED_BLOCKS))
