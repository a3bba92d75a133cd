"""Crash after crash of one chain, at every marked point of both programs; then the whole chain executed again.

LEDGER_CRASHES says how many crashes (200 for the long mode, 10 when not given, at points that chance chooses).
LEDGER_SEED repeats an order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from ..ledger_fixture import Ledger, patient, running_ledger, settle
from .crashing_ledger import POINTS
from .test_crashes import RECOVERY_S, check_books, crashing, insist, sound, until

COMETBFTS_OWN = [f"cometbft-{index}" for index in range(12)]
"""Its ten marked points, and two of the block after."""
KILLS = ["application", "cometbft", "both"]
"""At a moment that chance chooses."""
REPLAY_S = 300


def plan(chance: random.Random) -> list[str]:
    """Which crashes, in which order: every point as often as every other, give or take one."""
    points = [*POINTS, *COMETBFTS_OWN, *KILLS]
    count = int(os.environ.get("LEDGER_CRASHES") or 10)
    planned: list[str] = []
    while len(planned) < count:
        planned += chance.sample(points, len(points))
    return planned[:count]


async def test_no_crash_loses_or_doubles_a_block_and_a_replay_gives_the_same_hashes(tmp_path: Path) -> None:
    seed = int(os.environ.get("LEDGER_SEED") or random.randrange(1 << 32))
    print(f"LEDGER_SEED={seed}")
    chance, marker = random.Random(seed), tmp_path / "armed"
    planned = plan(chance)
    envelopes, commits = [], []
    async with running_ledger(tmp_path, patient(), program=crashing("any", marker)) as ledger:
        settled = await settle(ledger, len(planned) + 1)
        for number, point in enumerate(planned):
            envelopes.append(settled.allocate(f"u{number}"))
            before = (await ledger.until_up(limit_s=RECOVERY_S)).height
            await crash_at(ledger, point, marker, chance)
            commits.append(await insist(ledger, envelopes[-1]))
            await until(lambda: not marker.exists() and not index_of(marker).exists())
            after = max(before, commits[-1].height)
            await ledger.until_up(after=after, limit_s=RECOVERY_S)
            again = await insist(ledger, envelopes[-1])
            assert again.height == commits[-1].height, f"crash {number} at {point}"
        await check_books(settled, envelopes, commits)
        sound(ledger)
        height = (await ledger.client.status()).height
        headers = [await header(ledger, each) for each in range(1, height + 1)]
        ends = ledger.log().count("*** fail-test")
        assert ends == sum(point in COMETBFTS_OWN for point in planned), "not every armed point was reached"
        assert "app block height (" not in ledger.log(), "CometBFT found the application ahead of it, or too far behind"
    blocks = Path(f"{marker}.blocks")
    heights = sorted(int(name[:8]) for name in os.listdir(blocks))  # noqa: PTH208
    assert heights == list(range(len(heights))), "a block was asked for with two contents, or never"
    replayed = [replay(blocks, tmp_path / f"store-{hash_seed}", hash_seed) for hash_seed in ("0", "4242")]
    assert replayed[0] == replayed[1]
    assert [each["app_hash"].lower() for each in headers[1:]] == replayed[0][: height - 1]
    assert len(set(replayed[0])) > len(planned)
    print(f"{len(planned)} crashes, {height} blocks")


async def crash_at(ledger: Ledger, point: str, marker: Path, chance: random.Random) -> None:
    """Arm a point, or kill; what is armed may come later, with the next block or start."""
    if point in COMETBFTS_OWN:
        index_of(marker).write_text(point.removeprefix("cometbft-"))
        seen = ledger.log().count("*** fail-test")
        await kill(ledger, "cometbft")
        await until(lambda: ledger.log().count("*** fail-test") > seen)
    elif point == "info":  # called only when CometBFT starts
        write(marker, point)
        await kill(ledger, "cometbft")
    elif point in POINTS:
        write(marker, point)
    else:
        await asyncio.sleep(chance.uniform(0, 0.5))
        for name in ["application", "cometbft"] if point == "both" else [point]:
            await kill(ledger, name)


def write(marker: Path, point: str) -> None:
    """Whole or not at all: the application may look at any moment."""
    part = marker.with_suffix(".part")
    part.write_text(point)
    part.rename(marker)


async def kill(ledger: Ledger, name: str) -> None:
    """Waits for it to run, if it is being started. It may just be ended by the supervisor, which is as good."""
    pids: list[int] = []

    def there() -> bool:
        pids[:] = [pid for each, pid in ledger.pids().items() if each == name]
        return bool(pids)

    await until(there)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGKILL)


def index_of(marker: Path) -> Path:
    """Where crashing_ledger looks for the number of CometBFT's crash point."""
    return Path(f"{marker}.cometbft")


async def header(ledger: Ledger, height: int) -> dict[str, str]:
    """CometBFT's header of a block, which holds the app hash after the block before."""
    connector = aiohttp.UnixConnector(str(ledger.home / "run" / "rpc.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://cometbft/commit?height={height}") as answer,
    ):
        found: dict[str, str] = (await answer.json())["result"]["signed_header"]["header"]
        assert int(found["height"]) == height
        return found


def replay(blocks: Path, store: Path, hash_seed: str) -> list[str]:
    """App hashes by execution in a new process."""
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("replaying.py")), str(blocks), str(store)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=REPLAY_S,
    )
    hashes: list[str] = json.loads(done.stdout)
    return hashes
