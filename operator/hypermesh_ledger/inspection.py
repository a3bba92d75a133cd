"""Answers for people who look into the ledger: this process, a block, a transaction. Nothing here is agreed.

    Inspect     -> status, readiness, rounds, peers, pool, snapshots, who signs
    Transaction -> the outcomes' rows say the height -> CometBFT's block has the bytes
    Block       -> CometBFT's block, each transaction with its outcome as far as that is kept

One look at a time, and never more than WAITING in the queue: people are few, and blocks come first.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final

import grpc

from hypermesh import operations
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import rpc
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import CometbftSilent, HeightNotKept
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.home import RPC_SOCKET
from hypermesh_ledger.pool import Class

WAITING: Final = 16
"""Looks under way and waiting at most; the next one is told to come again."""


class Inspection:
    """The three calls. All on the core's event loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def inspect(self, context: Any) -> ledger_pb2.InspectResponse:
        """RESOURCE_EXHAUSTED when too many look."""
        async with self._queued(context):
            working = await self._core.consensus.look()
        core = self._core
        waiting = ledger_pb2.InspectResponse.Waiting
        return ledger_pb2.InspectResponse(
            status=core.status(),
            version=version("hypermesh"),
            not_ready=[f"{name}: {reason}" for name, reason in core.failing().items()],
            round=core.presence.round,
            consensus_height=working.height,
            consensus_round=working.round,
            consensus_step=working.step,
            peers=working.peers,
            pool=[waiting(**{"class": rank.name.lower()}, transactions=core.pool.count(rank)) for rank in Class],
            pool_bytes=core.pool.size,
            earliest_height=core.store.earliest(),
            snapshots=core.snapshots.heights(),
            standings=core.presence.standings(),
        )

    async def transaction(self, tx_hash: bytes, context: Any) -> ledger_pb2.TransactionRecord:
        """NOT_FOUND when no kept block decided it, INVALID_ARGUMENT, UNAVAILABLE, RESOURCE_EXHAUSTED."""
        if len(tx_hash) != 32:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a transaction's hash has 32 bytes")
        async with self._queued(context):
            found = await self._found(tx_hash)
            if found is None:
                lowest, newest = self._core.store.earliest(), self._core.store.head.height
                text = f"no block of {lowest} to {newest}, which are kept, decided transaction {tx_hash.hex()}"
                await context.abort(grpc.StatusCode.NOT_FOUND, text)
                raise AssertionError  # abort has raised
            height, row = found
            block = await self._block(height, context)
        records = _records(block, row)
        return next(each for each in records if each.tx_hash == tx_hash)

    async def block(self, height: int, context: Any) -> ledger_pb2.BlockResponse:
        """OUT_OF_RANGE for a block that CometBFT does not hold, UNAVAILABLE, RESOURCE_EXHAUSTED."""
        newest = self._core.store.head.height
        height = height or newest
        if height > newest:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"the newest block is {newest}")
        async with self._queued(context):
            block = await self._block(height, context)
        return ledger_pb2.BlockResponse(
            height=block.height,
            time_ms=block.time_ms,
            block_hash=block.hash,
            proposer=block.proposer,
            transactions=_records(block, self._core.store.outcomes(height)),
        )

    async def _found(self, tx_hash: bytes) -> tuple[int, ledger_pb2.Outcomes] | None:
        """Whoever hangs up keeps the turn until the thread is free again: commits need threads too."""
        search = asyncio.ensure_future(asyncio.to_thread(self._core.store.find_outcome, tx_hash))
        try:
            return await asyncio.shield(search)
        finally:
            await asyncio.wait((search,))

    async def _block(self, height: int, context: Any) -> rpc.RawBlock:
        try:
            return await rpc.block(RPC_SOCKET, height)
        except HeightNotKept as error:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"CometBFT holds no block {height}: {error}")
            raise AssertionError from error  # abort has raised
        except CometbftSilent as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError from error  # abort has raised

    @contextlib.asynccontextmanager
    async def _queued(self, context: Any) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many look into the ledger; look again later")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1


def _records(block: rpc.RawBlock, row: ledger_pb2.Outcomes | None) -> list[ledger_pb2.TransactionRecord]:
    """The block's transactions with their outcomes, in the same order; without the votes that it begins with."""
    first = 1 if block.txs and extensions.recognise(block.txs[0]) else 0
    txs = block.txs[first:]
    outcomes = row.outcomes if row is not None and len(row.outcomes) == len(txs) else [None] * len(txs)
    record = functools.partial(ledger_pb2.TransactionRecord, height=block.height, time_ms=block.time_ms)
    return [
        record(
            tx_hash=operations.tx_hash(tx),
            index=index,
            envelope=tx,
            known=outcome is not None,
            reason=outcome.reason if outcome else "",
            message=outcome.message if outcome else "",
        )
        for index, (tx, outcome) in enumerate(zip(txs, outcomes, strict=True), first)
    ]
