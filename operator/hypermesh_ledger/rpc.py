"""CometBFT's own word on its blocks, over the RPC's unix socket: signed headers and validator sets, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import aiohttp

from hypermesh_ledger.errors import CometbftSilent

TIMEOUT_S: Final = 5.0
VALIDATORS: Final = 100
"""CometBFT's largest page."""


async def signed_header(socket: Path, height: int) -> tuple[bytes, bytes]:
    """JSON of header and commit, and of the validators, of one block. Raises CometbftSilent."""
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession("http://cometbft", connector=connector, timeout=timeout) as session:
            commit = await _get(session, "commit", {"height": height})
            validators = await _get(session, "validators", {"height": height, "per_page": VALIDATORS})
        return _json(commit["signed_header"]), _json(validators["validators"])
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError) as error:
        raise CometbftSilent(f"CometBFT gives no signed header of block {height} ({error!r}). Ask again.") from error


async def _get(session: aiohttp.ClientSession, method: str, parameters: dict[str, int]) -> dict[str, Any]:
    async with session.get(f"/{method}", params=parameters) as answer:
        result: dict[str, Any] = (await answer.json())["result"]
    return result


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
