"""The stock `cometbft light`, and a primary that lies to it: it changes answers of abci_query, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hypermesh_ledger.options import find_cometbft

from ...processes import free_port

PATIENCE_S = 30.0
Lie = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From an honest response to a forged one; None leaves it."""


async def rpc(url: str, method: str, **parameters: str) -> Any:
    """The result of one JSON-RPC call. Raises LookupError with the error that came instead."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
        session.get(f"{url}/{method}", params=parameters) as answer,
    ):
        document = await answer.json()
    if "result" not in document:
        raise LookupError(f"{document['error']['message']}: {document['error'].get('data', '')}")
    return document["result"]


async def query(url: str, key: bytes, height: int = 0) -> dict[str, Any]:
    """The response to a query with a proof. Raises LookupError."""
    asked = {"path": '"/store/ledger/key"', "data": f"0x{key.hex()}", "height": str(height), "prove": "true"}
    result = await rpc(url, "abci_query", **asked)
    response: dict[str, Any] = result["response"]
    return response


def value_of(response: dict[str, Any]) -> bytes:
    return base64.b64decode(response["value"])


@contextlib.asynccontextmanager
async def lying_primary(honest: str, lie: Lie) -> AsyncIterator[str]:
    """Its URL."""
    async with aiohttp.ClientSession() as session:

        async def passed_on(request: web.Request) -> web.Response:
            async with session.post(
                honest, data=await request.read(), headers={"Content-Type": "application/json"}
            ) as got:
                document = await got.json()
            result = document.get("result")
            if isinstance(result, dict) and "response" in result and "proofOps" in result["response"]:
                result["response"] = lie(result["response"]) or result["response"]
            return web.json_response(document)

        async def silent(request: web.Request) -> web.WebSocketResponse:
            """The light client wants a place for subscriptions, and makes none."""
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.receive()
            return socket

        application = web.Application()
        application.router.add_post("/", passed_on)
        application.router.add_get("/websocket", silent)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "::1", port).start()
        try:
            yield f"http://[::1]:{port}"
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def light_client(directory: Path, chain_id: str, primary: str, witness: str) -> AsyncIterator[str]:
    """The URL of a light client that trusts the chain's second block, as the witness shows it."""
    program = find_cometbft(None)
    assert program, "build/bin/cometbft is missing: make tools"
    trusted = (await rpc(witness, "commit", height="2"))["signed_header"]["commit"]["block_id"]["hash"]
    port = free_port()
    directory.mkdir()  # noqa: ASYNC240
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, "light", chain_id, "--home-dir", str(directory), "--laddr", f"tcp://[::1]:{port}"),
            *("--primary", primary, "--witnesses", witness, "--height", "2", "--hash", trusted),
            stdout=log,
            stderr=log,
        )
    url = f"http://[::1]:{port}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert process.returncode is None, (directory / "log").read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    await rpc(url, "health")
                    break
                await asyncio.sleep(0.05)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_S)
