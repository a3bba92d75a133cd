"""Cost of a commit: the ledger beside CometBFT's own Go kvstore, with one validator and with four, in the same run.

    PYTHONSAFEPATH=1 python hack/bench/ledger.py [--validators 1|4|both] [--repetitions 3] [--single 100]
        [--crowd 2000] [--seconds 10]

Both sides have ML-DSA-65 keys and the same consensus settings; of four validators each side's have a network namespace
each on one bridge (needs root), and ours extend their votes. Each side's stand still (SIGSTOP) while the other's are
measured, but for one of ours that has no peers and makes a block every three seconds: idle ones talk to each other all
the time. The kvstore makes no empty blocks.
Ledger: Allocates of about 2 KB, each with a signature of its own, through gRPC over TLS; signature and four tickets
checked, capacity reserved. kvstore: values of the same size through CometBFT's RPC on unix sockets; see _kvstore.py.

Single: submitted to one validator when the one before is committed. Crowd: as fast as four clients can, spread over the
validators, each by its cheapest road: SubmitMany with 200 in a call (each client an operator of its own, as many calls
under way as its share of the pool has room for), and batches of 100 broadcast_tx_async; until all are committed, as
both sides show. At a rate: so many a second, whatever became of those before. Flood (one validator):
what another operator's single operations wait for while one key keeps its share of the pool full, beside what they wait
for without; last of all, since it leaves far more allocations than the kvstore has values.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _kvstore import BASELINE, Kvstore, Node, kvstore  # noqa: E402
from _ledgers import Ours, four_validators, memory_of, one_validator, singles, still  # noqa: E402
from _rows import Row, compared, percentile, publish, single  # noqa: E402
from tests.builders import TrustRoot  # noqa: E402
from tests.integration.ledger.four_ledgers import four  # noqa: E402

RATES: Final = {1: 200, 4: 100}
"""A second, by validators."""
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
KVSTORE_P2P: Final = 26_657
WARM: Final = 20


@dataclass(frozen=True)
class Pair:
    """Both sides, running. supervisors: pids of ours."""

    validators: int
    ours: Ours
    theirs: Kvstore
    supervisors: Sequence[int]
    alone: Callable[[], AbstractAsyncContextManager[None]]
    """Whatever runs in it has the machine without ours."""


@contextlib.asynccontextmanager
async def pair_of_one(directory: Path) -> AsyncIterator[Pair]:
    """On ::1. An idle one of ours makes a block every three seconds, which needs no stopping."""
    nodes = [Node(directory / "kvstore")]
    async with one_validator(directory / "ledger") as ours, kvstore(nodes) as theirs:
        process = ours.settled.ledger.process
        assert process is not None
        yield Pair(1, ours, theirs, [process.pid], nullcontext)


@contextlib.asynccontextmanager
async def pair_of_four(directory: Path) -> AsyncIterator[Pair]:
    """In the same four namespaces, which only exist in one that is this program's own."""
    root = TrustRoot()
    async with four(directory, root) as places:
        nodes = [
            Node(
                directory / f"kvstore-{place.number}",
                f"[{place.address}]:{KVSTORE_P2P}",
                ("nsenter", f"--net=/proc/{place.holder.pid}/ns/net", "--"),
            )
            for place in places
        ]
        async with kvstore(nodes) as theirs, four_validators(places, root) as ours:
            pids = [place.process.pid for place in places if place.process]
            yield Pair(4, ours, theirs, pids, lambda: still(places))


@dataclass
class Figures:
    """Of each repetition one, by name: ours, and theirs or what ours are compared with."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)

    def pair(self, name: str, ours: float, others: float) -> None:
        """Of one more repetition."""
        self.ours.setdefault(name, []).append(ours)
        self.others.setdefault(name, []).append(others)

    def latencies(self, name: str, taken: Sequence[float], others: Sequence[float]) -> None:
        """Percentiles, in ms."""
        for label, share in SHARES.items():
            self.pair(f"{name}, {label}", percentile(taken, share) * 1000, percentile(others, share) * 1000)

    def rows(self, who: str, unit: str, baseline: str) -> Iterator[Row]:
        for name, values in self.ours.items():
            yield compared(f"{who}: {name}", unit, values, baseline, self.others[name])


async def measure(options: argparse.Namespace, pair: Pair) -> list[Row]:
    """Ledger and baseline in turns; medians over the repetitions."""
    ours, theirs, rate = pair.ours, pair.theirs, RATES[pair.validators]
    times, speeds, beside = Figures(), Figures(), Figures()
    await singles(ours.settled, "warm", WARM)
    for repetition in range(options.repetitions):
        async with theirs.still():
            mine = await singles(ours.settled, f"single-{repetition}", options.single)
        async with pair.alone():
            times.latencies("commit of one Allocate", mine, await theirs.singles(options.single))
        async with theirs.still():
            committed = await ours.crowd(f"crowd-{repetition}", options.crowd)
        async with pair.alone():
            others = await theirs.crowd(options.crowd)
        speeds.pair("Allocates committed", committed, others)
        async with theirs.still():
            mine = await ours.at_rate(f"rate-{repetition}", rate, options.seconds)
        async with pair.alone():
            times.latencies(f"commit at {rate}/s", mine, await theirs.at_rate(rate, options.seconds))
    for repetition in range(options.repetitions if pair.validators == 1 else 0):
        async with theirs.still():
            quiet, loud = await ours.flooded(f"flood-{repetition}", options.single)
        beside.latencies("commit beside a flood", loud, quiet)
    who = "1 validator" if pair.validators == 1 else f"{pair.validators} validators"
    return [
        *times.rows(who, "ms", BASELINE),
        *speeds.rows(who, "1/s", BASELINE),
        *beside.rows(who, "ms", "without"),
        *(single(f"{who}: resident memory, {name}", "MiB", size) for name, size in memory_of(pair.supervisors)),
    ]


async def rows_of(options: argparse.Namespace, validators: int) -> list[Row]:
    """All rows of so many validators."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        async with (pair_of_one if validators == 1 else pair_of_four)(Path(name)) as pair:
            return await measure(options, pair)


def all_rows(options: argparse.Namespace) -> Iterator[Row]:
    """As they come."""
    for validators in (1, 4) if options.validators == "both" else (int(options.validators),):
        yield from asyncio.run(rows_of(options, validators))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validators", choices=("1", "4", "both"), default="both", help="default: both; 4 needs root")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--single", type=int, default=100, help="operations one after another, a repetition")
    parser.add_argument("--crowd", type=int, default=2000, help="operations at once, a repetition")
    parser.add_argument("--seconds", type=int, default=10, help="of a steady rate, a repetition")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # in a network namespace of its own
    options = parser.parse_args()
    if options.validators != "1" and not options.inside:
        if os.geteuid() != 0:
            raise SystemExit("Four validators take four network namespaces: run as root, or with --validators 1.")
        own = ("unshare", "--net", "--", sys.executable, *sys.argv, "--inside")
        os.execvp(own[0], own)
    if options.inside:
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    publish("ledger", all_rows(options))


if __name__ == "__main__":
    main()
