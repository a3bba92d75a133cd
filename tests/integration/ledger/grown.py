"""Four validators of one chain that began with one, and what was committed to it; shared by all tests of a run."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.mirror import Mirror
from hypermesh_ledger.peering import KNOWN

from ...builders import TrustRoot
from ..ledger_fixture import PROGRAM, START_S, Ledger, Settled, settle
from .faults import drops
from .four_ledgers import COUNT, METRICS, PORT, Place, agree, four, run
from .histories import no_fork

ACTIVE = ledger_pb2.VALIDATOR_STATE_ACTIVE


EARLY = "early.tar"
"""A backup of the first, from when it was alone; beside the places' directories."""


class Grown:
    """Four validators of one chain, and what was committed to it."""

    def __init__(self, places: list[Place], root: TrustRoot) -> None:
        self.places = places
        self.root = root
        self.committed: set[bytes] = set()

    async def commit(self, place: Place, count: int = 3) -> None:
        for _ in range(count):
            self.committed.add(await place.commit(self.root, f"someone-{len(self.committed)}"))

    async def lost(self) -> set[bytes]:
        """What was committed and is missing anywhere."""
        return self.committed - set.intersection(*[await place.enrolled() for place in self.places])

    async def sound(self) -> None:
        """All are at one height again, nothing that was committed is missing, and there was never a fork."""
        height = await agree(self.places)
        assert await self.lost() == set()
        compared = await no_fork(self.places)
        print(f"{len(self.committed)} operations; {compared} of {height} blocks and states compared")
        assert compared > len(self.committed) // 100


@contextlib.asynccontextmanager
async def grown_to_four(directory: Path) -> AsyncIterator[Grown]:
    """From one embedded validator, on its chain. Newcomers do not know of each other before they have begun."""
    root = TrustRoot()
    async with four(directory, root) as places:
        world = Grown(places, root)
        first = places[0]
        await first.start(alone=True)
        alone = await first.until(lambda status: status.height > 1, "block")
        await world.commit(first)
        assert await first.seats() == {}
        await first.stop()
        run(*PROGRAM, "backup", str(directory / EARLY), "--home", str(first.directory / "home"))
        with drops(places[1], places[2:]), drops(places[2], places[3:]):
            for place in places:
                await place.start()
            for place in places:
                await place.until(lambda status: status.height > alone.height, "block of the first validator's chain")
            knows = [json.loads((each.directory / "home" / KNOWN).read_text()) for each in places[1:]]
            assert [len(each) for each in knows] == [1, 1, 1]
        for _ in range(240):
            if [each.state for each in (await first.seats()).values()] == [ACTIVE] * COUNT:
                break
            await asyncio.sleep(0.5)
        else:
            raise AssertionError(f"they did not join: {await first.seats()}\n{first.log[-3000:]}")
        after = await first.until(lambda _: True, "answer")
        assert after.chain_id == alone.chain_id
        await first.until(lambda status: status.height > after.height + 4, "block of all four")
        yield world


@contextlib.asynccontextmanager
async def seen_through(place: Place, root: TrustRoot) -> AsyncIterator[Ledger]:
    """The chain as one running place shows it, mirrored."""
    pem = (place.directory / "tls.crt").read_bytes()
    ledger = Ledger(place.directory, root, PORT, METRICS, pem, (), place.client, Mirror(place.client))
    following = asyncio.create_task(ledger.mirror.run())
    try:
        async with asyncio.timeout(START_S):
            await ledger.mirror.synced.wait()
        yield ledger
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@contextlib.asynccontextmanager
async def tenants_of(grown: Grown) -> AsyncIterator[Settled]:
    """An operator, a node with won tickets and its CPU, seen through the first ledger."""
    async with seen_through(grown.places[0], grown.root) as ledger:
        yield await settle(ledger, 100)
