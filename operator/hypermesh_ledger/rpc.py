"""CometBFT's own word on its blocks, over the RPC's unix socket: signed headers, blocks, and what it is doing."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from hypermesh_ledger.errors import CometbftSilent, HeightNotKept

TIMEOUT_S: Final = 5.0
VALIDATORS: Final = 100
"""CometBFT's largest page."""


@dataclass(frozen=True, slots=True)
class RawBlock:
    """A block as CometBFT holds it. time_ms: unix; hash: 32 bytes; proposer: 20 bytes; txs: whole envelopes."""

    height: int
    time_ms: int
    hash: bytes
    proposer: bytes
    txs: list[bytes]


async def signed_header(socket: Path, height: int) -> tuple[bytes, bytes]:
    """JSON of header and commit, and of the validators, of one block. Raises CometbftSilent."""
    async with _session(socket, f"no signed header of block {height}") as session:
        commit = await _get(session, "commit", {"height": height})
        validators = await _get(session, "validators", {"height": height, "per_page": VALIDATORS})
        return _json(commit["signed_header"]), _json(validators["validators"])


async def block(socket: Path, height: int) -> RawBlock:
    """One block. Raises CometbftSilent, HeightNotKept with CometBFT's sentence."""
    async with _session(socket, f"no block {height}") as session:
        try:
            found = await _get(session, "block", {"height": height})
        except _Refusal as refusal:
            raise HeightNotKept(refusal.args[0]) from refusal
        header = found["block"]["header"]
        moment = datetime.fromisoformat(header["time"][:19] + "+00:00")  # nanoseconds are more than Python reads
        fraction = int(header["time"][19:].strip(".Z").ljust(3, "0")[:3])
        return RawBlock(
            height=int(header["height"]),
            time_ms=int(moment.timestamp()) * 1000 + fraction,
            hash=bytes.fromhex(found["block_id"]["hash"]),
            proposer=bytes.fromhex(header["proposer_address"]),
            txs=[base64.b64decode(tx) for tx in found["block"]["data"]["txs"] or ()],
        )


async def light_block(socket: Path, height: int) -> tuple[bytes, bytes, bytes]:
    """Results of commit, validators and consensus_params of one block.

    Raises CometbftSilent, HeightNotKept with CometBFT's sentence.
    """
    async with _session(socket, f"no light block {height}") as session:
        try:
            commit = await _get(session, "commit", {"height": height})
            validators = await _get(session, "validators", {"height": height, "per_page": VALIDATORS})
            terms = await _get(session, "consensus_params", {"height": height})
        except _Refusal as refusal:
            raise HeightNotKept(refusal.args[0]) from refusal
        return _json(commit), _json(validators), _json(terms)


async def earliest_height(socket: Path) -> int:
    """Of the blocks that CometBFT keeps; 0 when it has none. Raises CometbftSilent."""
    async with _session(socket, "no word on which blocks it keeps") as session:
        status = await _get(session, "status", {})
        return int(status["sync_info"]["earliest_block_height"])


async def working(socket: Path) -> tuple[int, int, int, int]:
    """Height, round and step that consensus works on, and the number of connected peers. Raises CometbftSilent."""
    async with _session(socket, "no state of its consensus") as session:
        state = await _get(session, "consensus_state", {})
        network = await _get(session, "net_info", {})
        height, number, step = map(int, state["round_state"]["height/round/step"].split("/"))
        return height, number, step, int(network["n_peers"])


async def connected(socket: Path) -> set[str]:
    """Node ids of connected peers. Raises CometbftSilent."""
    async with _session(socket, "no list of its peers") as session:
        found = await _get(session, "net_info", {})
        return {str(each["node_info"]["id"]) for each in found["peers"]}


async def dial(socket: Path, addresses: Sequence[str]) -> None:
    """Have CometBFT connect to each id@host:port once; it answers before it has tried. Raises CometbftSilent.

    Not as persistent peers: CometBFT v0.40.0 replaces that list while others read it.
    """
    async with _session(socket, "no way to dial peers") as session:
        await _get(session, "dial_peers", {"peers": json.dumps(list(addresses))})


@asynccontextmanager
async def _session(socket: Path, lack: str) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession("http://cometbft", connector=connector, timeout=timeout) as session:
            yield session
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        raise CometbftSilent(f"CometBFT gives {lack} ({error!r}). Ask again.") from error


async def _get(session: aiohttp.ClientSession, method: str, parameters: Mapping[str, int | str]) -> dict[str, Any]:
    async with session.get(f"/{method}", params=parameters) as answer:
        found = await answer.json()
    if "result" not in found:
        raise _Refusal(str(found["error"].get("data")))
    result: dict[str, Any] = found["result"]
    return result


class _Refusal(KeyError):
    """CometBFT's sentence; for most callers as good as no answer."""


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
