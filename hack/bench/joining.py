"""How long a new ledger takes to join a chain of 10,000 blocks whose first ones are forgotten.

    PYTHONSAFEPATH=1 python hack/bench/joining.py [--blocks 10000] [--repetitions 3] [--limit 60]

One validator makes the chain, empty blocks as fast as it can; then, at its usual pace, it is joined over ::1 by one
new ledger after the other, each with an empty directory: from the start of its process until it has the height that the
chain had then. Exit status 1 when the median is above --limit seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _rows import Row, publish, single  # noqa: E402
from tests.integration.ledger_fixture import Ledger, command_for, patient, running_ledger  # noqa: E402
from tests.processes import free_port  # noqa: E402

from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable, NotHeld  # noqa: E402

FAST = (sys.executable, "-P", str(Path(__file__).with_name("_fast_blocks.py")))
USUAL = (sys.executable, "-P", "-m", "hypermesh_ledger.main")
MAKING_S = 3_600.0
JOINING_S = 600.0


def with_peers(peers: str, own: str) -> tuple[str, ...]:
    """Command line of a ledger with its own p2p port."""
    return ("--p2p-address", f"[::1]:{free_port()}", "--peers", peers, "--name", own)


async def join(ledger: Ledger, directory: Path) -> float:
    """Seconds."""
    for name in ("root.pub", "parameters.json", "tls.crt", "tls.key"):
        (directory / name).write_bytes((ledger.directory / name).read_bytes())
    port = free_port()
    own = f"[::1]:{port}"
    command = [*command_for(USUAL, directory, port, free_port()), *with_peers(f"{ledger.target},{own}", own)]
    height = (await ledger.client.status()).height
    client = LedgerClient(own, ledger.ca_pem)
    began = time.monotonic()
    with (directory / "ledger.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(JOINING_S):
            while True:
                try:
                    if (await client.status(timeout=1)).height >= height:
                        break
                except LedgerUnavailable:
                    pass
                await asyncio.sleep(0.1)
        seconds = time.monotonic() - began
        if "restoring a snapshot" not in (directory / "ledger.log").read_text():
            raise SystemExit("it did not join by a snapshot: see why in the log, or make the chain longer")
        return seconds
    finally:
        process.terminate()
        await process.wait()
        await client.close()


async def measure(blocks: int, repetitions: int) -> tuple[float, list[float]]:
    """Seconds to make the chain, and to join it."""
    os.environ["BLOCKS"] = str(blocks)
    with tempfile.TemporaryDirectory(prefix="bench-joining-") as name:
        here = Path(name)
        target = f"[::1]:{free_port()}"
        options = with_peers(target, target)
        began = time.monotonic()
        async with running_ledger(here / "first", patient(), program=FAST, options=options) as ledger:
            await ledger.until_up(after=blocks, limit_s=MAKING_S)
            made = time.monotonic() - began
            await _forgotten(ledger)
            seconds = []
            for number in range(repetitions):
                (here / str(number)).mkdir()
                seconds.append(await join(ledger, here / str(number)))
        return made, seconds


async def _forgotten(ledger: Ledger) -> None:
    try:
        await ledger.client.light_block(1)
    except NotHeld:
        return
    raise SystemExit("the chain still has its first block: make it longer, so that it can only be joined by a snapshot")


def rows(blocks: int, made: float, seconds: list[float]) -> Iterator[Row]:
    """The figures."""
    yield single(f"a chain of {blocks:,} empty blocks is made", "s", made)
    yield single("a new ledger joins it by a snapshot", "s", *seconds)


def main() -> int:
    """Exit status: 1 when joining takes longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    made, seconds = asyncio.run(measure(options.blocks, options.repetitions))
    publish("joining", rows(options.blocks, made, seconds))
    return 0 if statistics.median(seconds) <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
