"""InsertTx: a transaction from a peer. Answered at once, checked in the background: the answer holds up the peer."""

from __future__ import annotations

import asyncio
import logging

from hypermesh import operations
from hypermesh.refusals import Refused
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

_log = logging.getLogger(__name__)
_under_way: set[asyncio.Task[None]] = set()


async def insert_tx(core: Core, request: abci.RequestInsertTx) -> abci.ResponseInsertTx:
    """Always code 0; a peer learns nothing about why its transaction is dropped."""
    task = asyncio.create_task(_admit(core, request.tx))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return abci.ResponseInsertTx()


async def _admit(core: Core, tx: bytes) -> None:
    try:
        await core.admit(tx, operations.tx_hash(tx))
    except Refused as refusal:
        _log.info("peer's transaction refused: %s", refusal)
