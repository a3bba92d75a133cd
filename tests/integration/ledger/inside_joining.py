"""A chain that has forgotten its first block grows from one to four, and who was away too long comes back.

On four machines' worth of network. Ledgers join by a snapshot, also when killed at every point of its restore.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerUnavailable, NotHeld

from ...builders import TrustRoot
from .four_ledgers import COUNT, LIMIT_S, Place, agree, four
from .young_ledger import POINTS, WINDOW

pytestmark = pytest.mark.asyncio(loop_scope="module")
ACTIVE = ledger_pb2.VALIDATOR_STATE_ACTIVE
PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("young_ledger.py")))
INTERVAL = WINDOW


class Young:
    """Four validators of one chain, and what was committed to it."""

    def __init__(self, places: list[Place], root: TrustRoot) -> None:
        self.places = places
        self.root = root
        self.committed: set[bytes] = set()

    async def commit(self, place: Place, count: int = 3) -> None:
        for _ in range(count):
            self.committed.add(await place.commit(self.root, f"someone-{len(self.committed)}"))

    async def lost(self) -> set[bytes]:
        return self.committed - set.intersection(*[await place.enrolled() for place in self.places])


async def forgets(place: Place, height: int) -> None:
    """Until it does not have that block any more. Bounded."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        try:
            await place.client.light_block(height)
        except NotHeld as error:
            if "is not available" in str(error):
                return
        except LedgerUnavailable:
            pass
        await asyncio.sleep(0.2)
    raise AssertionError(f"ledger {place.number} still has block {height}\n{place.log[-3000:]}")


def hurry(places: list[Place], *, yes: bool = True) -> None:
    """Blocks as fast as they can be made, or one every now and then."""
    for place in places:
        path = place.directory / "hurry"
        path.touch() if yes else path.unlink(missing_ok=True)


def signed(place: Place) -> int:
    """The height that CometBFT's record of signatures names."""
    return int(json.loads((place.directory / "home" / "data" / "priv_validator_state.json").read_text())["height"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def young(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Young]:
    root = TrustRoot()
    async with four(tmp_path_factory.mktemp("young"), root) as places:
        for place in places:
            place.program, place.options = PROGRAM, ("--snapshot-interval", str(INTERVAL))
        world = Young(places, root)
        first, *others = places
        hurry(places)
        await first.start(listed=1)
        await world.commit(first)
        alone = await first.until(lambda status: status.height > 3 * WINDOW, "blocks")
        await forgets(first, 1)
        hurry(places, yes=False)
        await asyncio.gather(*(place.start() for place in others))
        for place in others:
            await place.until(lambda status: status.height > alone.height, "block of the first validator's chain")
            assert "restoring a snapshot" in place.log, "blocks were not replayed: nobody has the first"
        assert await first.seats() == {}
        await first.stop()  # as a StatefulSet does, when the newcomers are ready
        await first.start()
        for _ in range(int(LIMIT_S)):
            if [each.state for each in (await first.seats()).values()] == [ACTIVE] * COUNT:
                break
            await asyncio.sleep(1)
        else:
            raise AssertionError(f"they did not join: {await first.seats()}\n{others[0].log[-3000:]}")
        yield world


async def test_a_chain_without_its_first_block_grows_to_four(young: Young) -> None:
    for place in young.places:
        await young.commit(place, 1)
    await agree(young.places)
    assert await young.lost() == set()
    assert not any((place.directory / "home/config/fetching").exists() for place in young.places)


@pytest.mark.parametrize("who", [3, 0], ids=["one", "the founder, the only validator of the genesis"])
async def test_who_was_away_longer_than_blocks_are_kept_comes_back(young: Young, who: int) -> None:
    victim, others = young.places[who], [place for place in young.places if place.number != who]
    left = await victim.until(lambda _: True, "answer")
    await victim.kill()
    before = signed(victim)
    assert before > 0
    hurry(others)
    for place in others:
        await young.commit(place)
        await forgets(place, left.height + 10)
    hurry(others, yes=False)
    await victim.start()
    newest = await others[0].until(lambda _: True, "answer")
    await victim.until(lambda status: status.height >= newest.height, "catching up")
    assert "keep no block that follows" in victim.log
    assert signed(victim) >= before, "what it has signed is never forgotten"
    await agree(young.places)
    assert await young.lost() == set()
    now = signed(victim)
    for _ in range(int(LIMIT_S)):
        if signed(victim) > now:
            break
        await asyncio.sleep(1)
    else:
        raise AssertionError("it signs no more blocks")


async def test_killed_at_any_point_of_a_restore_it_joins(young: Young) -> None:
    first, victim = young.places[0], young.places[2]
    await victim.kill()
    for name in ("config/genesis.json", "state/data.mdb"):
        (victim.directory / "home" / name).unlink()
    for path in sorted((victim.directory / "home/data").glob("*.db")):
        path.rename(victim.directory / f"gone-{path.name}")
    for point in POINTS:
        (victim.directory / "crash").write_text(point)
        await victim.start()
        assert victim.process is not None
        async with asyncio.timeout(LIMIT_S):
            await victim.process.wait()
        assert not (victim.directory / "crash").exists(), f"it ended before {point}\n{victim.log[-3000:]}"
    await victim.start()
    newest = await first.until(lambda _: True, "answer")
    await victim.until(lambda status: status.height >= newest.height, "catching up")
    await young.commit(victim, 1)
    await agree(young.places)
    assert await young.lost() == set()
