"""What is kept filled: as much as is wanted and the machine can spare, and first to go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hypermesh.proofs.challenges import memory_owner
from hypermesh.proofs.parameters import MEMORY_DEMO
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.directory import NodeAsset
from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MemoryRegions
from hypermesh_agent.hardware import Hardware, Kind
from hypermesh_agent.memory import filling as tested
from hypermesh_agent.memory.filling import Filler
from hypermesh_agent.memory.room import Room
from hypermesh_agent.memory.sizes import Share
from hypermesh_agent.memory.slabs import Filling, Slabs
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror

MIB = 1 << 20
SLAB = 4 * MIB
LIMIT_S = 60
FLOOR = 256 * MIB
RAM = NodeAsset(b"r" * 32, "ram", Hardware(Kind.MEMORY, "ram", 64 * MIB, 64 * MIB), b"w" * 32)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - bounded by each test
        await asyncio.sleep(0.01)


class World:
    """A filler on a machine whose room the test says."""

    def __init__(self, slabs: Slabs, wanted: int) -> None:
        self.slabs = slabs
        self.mirror = Mirror(LedgerClient("[::1]:1", b""))
        self.room = Room(1 << 30, FLOOR, stalled=False)
        self.shares = {RAM.asset_id: Share(RAM, wanted, SLAB)}
        self.filler = Filler(slabs, self.mirror, lambda: self.shares, lambda: self.room)

    def reserve(self, amount: int) -> None:
        self.mirror.assets[RAM.asset_id] = ledger_pb2.AssetRecord(reserved=amount)

    async def until(self, slabs: int) -> None:
        await until(lambda: len(self.slabs.whole(RAM.asset_id)) == self.slabs.count(RAM.asset_id) == slabs)


@asynccontextmanager
async def world(tmp_path: Path, wanted: int = 3) -> AsyncIterator[World]:
    params = proofs_pb2.MemoryParameters()
    params.CopyFrom(MEMORY_DEMO)
    params.slab_bytes = SLAB
    filling = Filling(memory_owner("chain", b"n" * 32), params)
    async with asyncio.timeout(LIMIT_S), Slabs(filling, lambda: tmp_path / "group") as slabs:
        here = World(slabs, wanted)
        works = [asyncio.create_task(here.filler.fill()), asyncio.create_task(here.filler.watch())]
        try:
            yield here
        finally:
            for work in works:
                work.cancel()
            ended = await asyncio.gather(*works, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "TICK_S", 0.02)
    monkeypatch.setattr(tested, "REST_S", 0.2)


async def test_it_fills_what_is_wanted_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.until(3)
        assert here.filler.complete()
        here.shares = {RAM.asset_id: Share(RAM, 1, SLAB)}
        await here.until(1)
        here.shares = {}
        await here.until(0)


async def test_a_reservation_has_its_memory_when_make_room_returns_and_a_release_is_filled_again(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        await here.until(3)
        here.reserve(SLAB + 1)
        await here.filler.make_room(SLAB + 1)
        assert here.slabs.count(RAM.asset_id) == 1
        here.reserve(0)
        await here.until(3)
        assert here.filler.given_back == 0


async def test_more_is_given_back_when_the_machine_has_not_enough_for_a_tenant(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.until(3)
        here.room = Room(2 * SLAB - FLOOR, FLOOR, stalled=False)
        await here.filler.make_room(3 * SLAB)
        assert here.slabs.count(RAM.asset_id) <= 2
        assert here.filler.given_back >= SLAB


async def test_a_machine_that_runs_short_gets_it_back_and_it_is_filled_again_later(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.until(3)
        here.room = Room(-1, FLOOR, stalled=False)
        await here.until(0)
        await until(lambda: here.filler.given_back == 3 * SLAB)
        here.room = Room(FLOOR // 2, FLOOR, stalled=False)
        await asyncio.sleep(0.5)
        assert here.slabs.count(RAM.asset_id) == 0, "half a floor stays free"
        here.room = Room(1 << 30, FLOOR, stalled=False)
        await here.until(3)


async def test_processes_that_wait_for_memory_get_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.until(3)
        here.room = Room(1 << 30, FLOOR, stalled=True)
        await here.until(0)


async def test_room_is_made_before_a_region_is_begun(tmp_path: Path) -> None:
    """The order that keeps filled and leased memory from being there at the same time."""
    groups, asked = Controller(tmp_path / "groups", 1), list[int]()

    async def make_room(amount: int) -> None:
        asked.append(amount)
        raise EnforcementFailed("Stopped", "here")

    (tmp_path / "memory").mkdir()
    regions = MemoryRegions(tmp_path / "memory", groups, Populator(), make_room=make_room)
    with pytest.raises(EnforcementFailed, match="here"):
        await regions.ensure(Grant(b"g" * 32, ledger_pb2.ASSET_TYPE_MEMORY, SLAB))
    assert (asked, groups.names(), regions.names()) == ([SLAB], [], set())
