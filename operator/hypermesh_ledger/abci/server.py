"""Serves CometBFT's four connections (consensus, mempool, query, snapshots) on one unix socket.

Requests of one connection are answered in their order; a long PrepareProposal holds up only its own connection. Answers
are sent when CometBFT asks for it (Flush), as by its own server: each request has its Flush behind it. An error in a
method ends the whole application: going on would risk a state that other validators don't have.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from hypermesh_ledger.abci.apply_snapshot_chunk import apply_snapshot_chunk
from hypermesh_ledger.abci.check_tx import check_tx
from hypermesh_ledger.abci.commit import commit
from hypermesh_ledger.abci.extend_vote import extend_vote
from hypermesh_ledger.abci.finalize_block import finalize_block
from hypermesh_ledger.abci.framing import encode_response, read_request
from hypermesh_ledger.abci.info import info
from hypermesh_ledger.abci.init_chain import init_chain
from hypermesh_ledger.abci.insert_tx import insert_tx
from hypermesh_ledger.abci.list_snapshots import list_snapshots
from hypermesh_ledger.abci.load_snapshot_chunk import load_snapshot_chunk
from hypermesh_ledger.abci.offer_snapshot import offer_snapshot
from hypermesh_ledger.abci.prepare_proposal import prepare_proposal
from hypermesh_ledger.abci.process_proposal import process_proposal
from hypermesh_ledger.abci.query import query
from hypermesh_ledger.abci.verify_vote_extension import verify_vote_extension
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

Method = Callable[[Core, Any], Awaitable[Any]]

METHODS: Final[dict[str, Method]] = {
    "info": info,
    "init_chain": init_chain,
    "query": query,
    "check_tx": check_tx,
    "insert_tx": insert_tx,
    "prepare_proposal": prepare_proposal,
    "process_proposal": process_proposal,
    "finalize_block": finalize_block,
    "extend_vote": extend_vote,
    "verify_vote_extension": verify_vote_extension,
    "commit": commit,
    "list_snapshots": list_snapshots,
    "offer_snapshot": offer_snapshot,
    "load_snapshot_chunk": load_snapshot_chunk,
    "apply_snapshot_chunk": apply_snapshot_chunk,
}


class AbciServer:
    """One listening socket: `start`, then `run`, which ends only by an error or by cancellation."""

    def __init__(self, core: Core, path: Path) -> None:
        self._core = core
        self._path = path
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accept, str(self._path), limit=1 << 20)

    async def run(self) -> None:
        """Raises what a method raised."""
        try:
            await self._failed
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: list[bytes] = []
        proposed = False
        try:
            while (request := await read_request(reader)) is not None:
                answers.append(encode_response(await self._answer(request)))
                proposed = proposed or request.HasField("process_proposal")
                if request.HasField("flush"):
                    writer.write(b"".join(answers))
                    answers.clear()
                    await writer.drain()
                    if proposed:
                        self._core.ahead.begin()
                        proposed = False
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # CometBFT went away; the supervisor sees to that
        except Exception as error:  # noqa: BLE001 - any error here must end the application
            if not self._failed.done():
                self._failed.set_exception(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, request: abci.Request) -> abci.Response:
        name = request.WhichOneof("value")
        if name == "echo":
            return abci.Response(echo=abci.ResponseEcho(message=request.echo.message))
        if name == "flush":
            return abci.Response(flush=abci.ResponseFlush())
        if name not in METHODS:
            raise ValueError(f"CometBFT calls ABCI method {name}, which this application does not serve")
        answer = await METHODS[name](self._core, getattr(request, name))
        return abci.Response(**{name: answer})
