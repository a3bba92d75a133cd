"""Info: which block the application has committed; CometBFT replays what comes after it."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

APP_VERSION = 1


async def info(core: Core, request: abci.RequestInfo) -> abci.ResponseInfo:
    """Height and app hash come from the same LMDB record, so they can't disagree."""
    head = core.store.head
    return abci.ResponseInfo(
        data="hypermesh-ledger",
        version=str(APP_VERSION),
        app_version=APP_VERSION,
        last_block_height=head.height,
        last_block_app_hash=head.app_hash,
    )
