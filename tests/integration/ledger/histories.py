"""What each ledger holds as the chain's past, and that it is one past: no fork in blocks or states at any height."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

from .four_ledgers import Place

AT_ONCE = 20
"""Headers that CometBFT tells at once."""
CALLS = 500

Header = tuple[str, str]
"""A block's hash, and the app hash after the block before."""


async def history(home: Path) -> dict[int, Header]:
    """By height, all that this ledger's CometBFT keeps."""
    connector = aiohttp.UnixConnector(str(home / "run" / "rpc.sock"))
    timeout = aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        (status,) = await _ask(session, [("status", {})])
        first, last = (int(status["sync_info"][f"{end}_block_height"]) for end in ("earliest", "latest"))
        starts = range(first, last + 1, AT_ONCE)
        spans = [{"minHeight": str(low), "maxHeight": str(min(low + AT_ONCE - 1, last))} for low in starts]
        found: dict[int, Header] = {}
        for begin in range(0, len(spans), CALLS):
            for answer in await _ask(session, [("blockchain", span) for span in spans[begin : begin + CALLS]]):
                for meta in answer["block_metas"]:
                    found[int(meta["header"]["height"])] = (meta["block_id"]["hash"], meta["header"]["app_hash"])
        return found


async def no_fork(places: Iterable[Place]) -> int:
    """Every height that two ledgers hold is the same block on the same state; how many such heights there are."""
    pasts = {place.number: await history(place.directory / "home") for place in places}
    compared = 0
    for height in sorted(set().union(*pasts.values())):
        held = {number: past[height] for number, past in pasts.items() if height in past}
        assert len(set(held.values())) == 1, f"a fork at height {height}: {held}"
        compared += len(held) > 1
    return compared


async def _ask(session: aiohttp.ClientSession, calls: list[tuple[str, dict[str, str]]]) -> list[Any]:
    batch = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls)
    ]
    async with session.post("http://cometbft/", json=batch) as reply:
        answers = json.loads(await reply.text())
    answers = sorted(answers if isinstance(answers, list) else [answers], key=lambda each: int(each["id"]))
    assert all("result" in each for each in answers), answers
    return [each["result"] for each in answers]
