"""What CometBFT's light client asks while a state is restored: two unix sockets here, answered by the peers' service.

    CometBFT -- JSON-RPC on run/light-N.sock --> here -- LightBlock over TLS --> a peer -- its CometBFT's unix socket

So no ledger opens an RPC port. Only the three methods that state sync needs are answered (statesync/stateprovider.go
and light/provider/http of CometBFT v0.40.0). Nothing is believed here: the light client checks signatures and hashes
from the trusted header on. Each socket begins its list of peers with another one, so that its two witnesses are two
ledgers when there are two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable, NotHeld

ASK_S: Final = 5.0
KEPT: Final = 64
"""Light blocks that one socket remembers: the client asks for each part on its own."""
REQUEST_BYTES: Final = 64 << 10
PARTS: Final = {"commit": "commit", "validators": "validators", "consensus_params": "consensus_params"}
"""Method of CometBFT's RPC, and field of LightBlockResponse."""


class LightProxy:
    """One socket. peers: asked in this order."""

    def __init__(self, peers: Sequence[LedgerClient]) -> None:
        self._peers = peers
        self._blocks: dict[int, ledger_pb2.LightBlockResponse] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, socket: Path) -> None:
        """Listen. Raises OSError."""
        application = web.Application(client_max_size=REQUEST_BYTES)
        application.router.add_post("/", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()

    async def stop(self) -> None:
        """Also when it never started."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            asked: dict[str, Any] = json.loads(await request.read())
            method, number = str(asked["method"]), asked.get("id", 0)
            height = int((asked.get("params") or {}).get("height") or 0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _refusal(0, "this is no request with a height")
        if method not in PARTS or height < 1:
            return _refusal(number, f"{method} of height {height} is not served here")
        try:
            block = await self._block(height)
        except (LedgerUnavailable, NotHeld) as error:
            return _refusal(number, str(error))
        try:
            result = json.loads(getattr(block, PARTS[method]))
        except (ValueError, RecursionError):
            return _refusal(number, "a peer answered with no JSON")
        return web.json_response({"jsonrpc": "2.0", "id": number, "result": result})

    async def _block(self, height: int) -> ledger_pb2.LightBlockResponse:
        """Of the first peer that has it; when none has, the sentence of the last that says so."""
        if height in self._blocks:
            return self._blocks[height]
        refused: LedgerUnavailable | NotHeld = LedgerUnavailable("no peer answers")
        for peer in self._peers:
            try:
                block = await peer.light_block(height, ASK_S)
            except NotHeld as error:
                refused = error
                continue
            except LedgerUnavailable:
                continue
            while len(self._blocks) >= KEPT:
                del self._blocks[min(self._blocks)]
            self._blocks[height] = block
            return block
        raise refused


async def serve(peers: Sequence[LedgerClient], sockets: Sequence[Path]) -> list[LightProxy]:
    """One proxy a socket, all listening. Raises OSError."""
    proxies = [
        LightProxy([*peers[number:], *peers[:number]]) for number in (each % len(peers) for each in range(len(sockets)))
    ]
    await asyncio.gather(*(proxy.start(socket) for proxy, socket in zip(proxies, sockets, strict=True)))
    return proxies


def _refusal(number: Any, text: str) -> web.Response:
    error = {"code": -32603, "message": "Internal error", "data": text}
    return web.json_response({"jsonrpc": "2.0", "id": number, "error": error})
