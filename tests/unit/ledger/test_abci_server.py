"""The socket that CometBFT calls: answers in order, and when they are asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hypermesh_ledger.abci.server import METHODS, AbciServer
from hypermesh_ledger.core import Core
from hypermesh_ledger.delimited import delimited
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


def echo(message: str) -> abci.Request:
    return abci.Request(echo=abci.RequestEcho(message=message))


PROPOSED = abci.Request(process_proposal=abci.RequestProcessProposal())
FLUSH = abci.Request(flush=abci.RequestFlush())


async def test_answers_go_in_order_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    core = SimpleNamespace(ahead=SimpleNamespace(begin=lambda: begun.append("begun")))

    async def process_proposal(*_: object) -> abci.ResponseProcessProposal:
        assert begun == []
        return abci.ResponseProcessProposal()

    monkeypatch.setitem(METHODS, "process_proposal", process_proposal)
    server = AbciServer(cast(Core, core), tmp_path / "abci.sock")
    await server.start()
    serving = asyncio.create_task(server.run())
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "abci.sock"))

    async def answers(count: int, *requests: abci.Request) -> list[Any]:
        writer.write(b"".join(delimited(each.SerializeToString()) for each in requests))
        found = []
        for _ in range(count):
            (length,) = await reader.readexactly(1)
            found.append(abci.Response.FromString(await reader.readexactly(length)))
        return found

    async with asyncio.timeout(30):
        assert [each.WhichOneof("value") for each in await answers(1, FLUSH)] == ["flush"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await answers(1, echo("1"), echo("2"))
        first, second, last = await answers(3, FLUSH)
        assert (first.echo.message, second.echo.message, last.HasField("flush")) == ("1", "2", True)
        assert begun == []
        assert len(await answers(2, PROPOSED, FLUSH)) == 2
        await answers(1, FLUSH)  # what follows an answer's way has been done then
        assert begun == ["begun"]
    writer.close()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
