"""What the size of the state costs: memory of a process that holds it, and processor time of an operation.

    PYTHONSAFEPATH=1 python hack/bench/state.py [--assets 1000,10000,100000,1000000] [--operations 400]

Assets are made without consensus and network (see _assets.py: some minutes for a million). At each size a process of
its own opens the state, as the application does when it starts. Allocates, each with a signature of its own and of
assets drawn from all, are judged, executed and committed to LMDB there in blocks of 100: processor time an operation
without the signature's verification, which no state makes slower, the least of three rounds.

Memory is that of the measuring process afterwards: what it has for itself (RssAnon) and, apart, pages of files
(RssFile): those of the database that it has touched among them, which the kernel takes back when it needs them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _assets import EACH, Chain, executed, write  # noqa: E402
from _rows import Row, compared, publish, resident, single  # noqa: E402

from hypermesh import operations  # noqa: E402
from hypermesh_ledger.checks import Check, verify_now  # noqa: E402
from hypermesh_ledger.execution import Block, judge  # noqa: E402
from hypermesh_ledger.store import Store  # noqa: E402

BLOCK: Final = 100
ROUNDS: Final = 3
PARTS: Final = {"RssAnon": "own", "RssFile": "of files, the database's pages among them"}


@dataclass(frozen=True)
class Measured:
    """cost: µs of processor time an operation, the least of the rounds; memory: MiB by name of the kernel's."""

    cost: float
    memory: dict[str, float]


def measured(directory: Path, now_ms: int, rounds: Sequence[Sequence[bytes]]) -> Measured:
    """In a process that has done nothing else."""
    store, verified = Store(directory), set[bytes]()

    def verify(check: Check) -> None:
        """As the application's verdicts: each signature once."""
        if check.key not in verified:
            verify_now(check)
            verified.add(check.key)

    def admit(txs: Sequence[bytes]) -> None:
        block = Block(store.head.height + 1, now_ms, bytes(32), ())
        for tx in txs:
            judge(store.snapshot, block, operations.decode(tx), verify)

    costs = []
    for txs in rounds:
        admit(txs)  # signatures are verified before the clock starts
        began = time.process_time()
        for first in range(0, len(txs), BLOCK):
            some = txs[first : first + BLOCK]
            admit(some)
            write(store, now_ms, executed(store.snapshot, store.head.height + 1, now_ms, some, verify))
        costs.append((time.process_time() - began) / len(txs) * 1e6)
    memory = {field: resident(os.getpid(), field) / 1024 for field in PARTS}
    store.close()
    return Measured(min(costs), memory)


def measure(options: argparse.Namespace, directory: Path) -> Iterator[Row]:
    """Each size on the state of the one before."""
    chain, chance, first = Chain(directory), random.Random(1), 0.0
    for size in options.assets:
        chain.grow(-(-size // EACH))
        held = len(chain.nodes) * EACH
        rounds = [list(chain.allocates(options.operations, f"{size}-{each}", chance)) for each in range(ROUNDS)]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            found = fresh.submit(measured, directory, chain.now_ms, rounds).result()
        name = f"an operation with {held:,} assets"
        yield (
            compared(name, "µs", [found.cost], "with the fewest", [first]) if first else single(name, "µs", found.cost)
        )
        first = first or found.cost
        yield from (
            single(f"memory with {held:,} assets, {PARTS[each]}", "MiB", it) for each, it in found.memory.items()
        )
        files = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
        yield single(f"disk with {held:,} assets", "MiB", files / (1 << 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--assets", type=lambda text: [int(each) for each in text.split(",")], default="1000,10000,100000,1000000"
    )
    parser.add_argument("--operations", type=int, default=400, help="Allocates measured at each size, a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="state-bench-") as directory:
        publish("state", measure(options, Path(directory)))


if __name__ == "__main__":
    main()
