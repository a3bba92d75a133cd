"""Whose proof is next: lanes in turn, bounds that say so, and no turn that gets lost."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh_ledger.turns import LANE, WAITING, Busy, Turns


async def served(turns: Turns, lanes: list[bytes]) -> list[bytes]:
    """The order in which these are served that all wait for somebody else's turn to end."""
    order: list[bytes] = []

    async def one(lane: bytes) -> None:
        async with turns.turn(lane):
            order.append(lane)
            await asyncio.sleep(0)

    async with turns.turn(b"before"):
        tasks = [asyncio.create_task(one(lane)) for lane in lanes]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return order


async def test_lanes_are_served_in_turn() -> None:
    assert await served(Turns(), [b"a"] * 5 + [b"b"] * 2 + [b"c"]) == [b"a", b"b", b"c", b"a", b"b", b"a", b"a", b"a"]


async def test_a_lane_and_all_of_them_are_bounded() -> None:
    turns = Turns()
    async with turns.turn(b"before"):
        waiting = [
            asyncio.create_task(turns._wait(bytes([lane, 0]))) for lane in range(WAITING // LANE) for _ in range(LANE)
        ]
        await asyncio.sleep(0)
        for lane in (b"\0\0", b"new"):
            with pytest.raises(Busy):
                await turns._wait(lane)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
    async with asyncio.timeout(30):
        for done in asyncio.as_completed(waiting[1:]):
            await done
            turns._next()
    assert not turns._taken


async def test_who_goes_away_holds_nobody_up() -> None:
    turns = Turns()
    gone: asyncio.Task[None]
    async with turns.turn(b"before"):
        gone = asyncio.create_task(turns._wait(b"a"))
        await asyncio.sleep(0)
    gone.cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(gone, return_exceptions=True)
    assert await served(turns, [b"b", b"c"]) == [b"b", b"c"]
