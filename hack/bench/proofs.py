"""Cost of the proofs: what a node spends, what a validator spends, and how large they are.

    PYTHONSAFEPATH=1 python hack/bench/proofs.py [--repetitions 3] [--production] [--k 18]

Each row sets a verification beside the making of the same proof (median of the repetitions, interleaved), in
processor time of this process and its children, which other load on the machine hardly changes; on a quiet machine
single-threaded steps take as long by the clock. With --production also memory, work and delay with the production
parameters, once (some minutes). `--k` makes plots of other sizes. Prints a table and writes build/bench/proofs.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))  # last: it must shadow nothing

from _memory import rows as memory_rows
from _rows import Row, compared, publish, single

import hypermesh_native
from hypermesh import falcon
from hypermesh.digests import digest
from hypermesh.proofs import challenge, delay, products, verify_space, verify_time, verify_work
from hypermesh.proofs.challenges import time_seed
from hypermesh.proofs.parameters import DEMO, PRODUCTION
from hypermesh.v1.ledger_pb2 import WorkSeed
from hypermesh.v1.proofs_pb2 import ProofParameters, TimeProof
from hypermesh_agent.proofs import Prover, WorkDevice, opencl, plots

NODE, DEVICE, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32


def processor_seconds() -> float:
    """User and system time of this process, its threads, and its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of processor time, and the result."""
    start = processor_seconds()
    result = call()
    return (processor_seconds() - start) * 1000, result


def verified(name: str, verify: Callable[[Any, int], Any], make: Callable[[int], Any], repetitions: int) -> Row:
    """A row: the median verification beside the median making of what is verified."""
    making, checking, size = [], [], 0
    for turn in range(repetitions):
        cost, proof = timed(partial(make, turn))
        making.append(cost)
        checking.append(timed(partial(verify, proof, turn))[0])
        size = len(proof) if isinstance(proof, bytes) else proof.ByteSize()
    return compared(f"verify {name} ({size} B)", "ms", checking, "make it", making)


def asked(turn: int) -> bytes:
    return challenge("bench", b"beacon", NODE, turn)


def signatures(repetitions: int) -> Iterator[Row]:
    pair, turns = falcon.generate(), max(repetitions, 21)
    yield verified(
        "FALCON-1024 signature",
        lambda signature, turn: falcon.verify(pair.public, signature, "operation", b"x" * 1000),
        lambda turn: falcon.sign(pair.secret, "operation", b"x" * 1000),
        turns,
    )
    signature, said = falcon.sign(pair.secret, "operation", b"x"), digest("operation", b"x")
    compiled, liboqs = [], []
    for _ in range(turns):
        compiled.append(
            timed(lambda: [hypermesh_native.verify(pair.public, signature, said) for _ in range(100)])[0] / 100
        )
        liboqs.append(
            timed(lambda: [falcon.verify(pair.public, signature, "operation", b"x") for _ in range(100)])[0] / 100
        )
    yield compared("verify it as the ledger does", "ms", compiled, "liboqs", liboqs)


def space(directory: Path, k: int, repetitions: int) -> Iterator[Row]:
    cost, _ = timed(lambda: asyncio.run(Prover(directory, NODE).ensure_plot(k)))
    yield single(f"plot k={k}", "s", cost / 1000)
    yield single(f"plot k={k} size", "MB", plots.plot_path(directory, NODE, k).stat().st_size / 1e6)
    yield verified(
        f"space k={k}",
        lambda proof, turn: verify_space(NODE, asked(turn), proof, DEMO),
        lambda turn: plots.answer(directory, NODE, k, asked(turn), DEMO),
        repetitions,
    )


def work(label: str, params: ProofParameters, multiply: products.Multiply, repetitions: int) -> Row:
    def make(turn: int) -> Any:
        root = products.commit(asked(turn), DEVICE, params, multiply)
        roots[turn] = root
        return products.open_work(asked(turn), DEVICE, SEED, root, params, multiply)

    roots: dict[int, bytes] = {}
    return verified(
        f"work {label} n={params.work_n}, {params.work_rounds} rounds, both phases",
        lambda proof, turn: verify_work(asked(turn), DEVICE, SEED, roots[turn], proof, params),
        make,
        repetitions,
    )


def elapsed(params: ProofParameters, repetitions: int) -> Row:
    import chiavdf

    def make(turn: int) -> TimeProof:
        seed, bits = time_seed(asked(turn)), params.vdf_discriminant_bits
        output = chiavdf.prove(seed, delay.GENERATOR, bits, params.vdf_iterations, "")
        return TimeProof(iterations=params.vdf_iterations, output=output)

    name = f"time {params.vdf_iterations} squarings"
    return verified(name, lambda proof, turn: verify_time(asked(turn), proof, params), make, repetitions)


async def epoch(directory: Path, repetitions: int) -> list[Row]:
    """From a challenge to all proofs in workers, as the agent does it; no ledger between."""
    prover = Prover(directory, NODE)
    await prover.ensure_plot(DEMO.space_min_k)
    clock, processor = [], []
    for turn in range(repetitions):
        start, used = time.perf_counter(), processor_seconds()
        commitments = await prover.commit_work(asked(turn), [WorkDevice(DEVICE)], DEMO)
        seed = WorkSeed(node=NODE, epoch=turn, seed=SEED, commitments=commitments)
        await prover.prove(asked(turn), turn, seed, DEMO)
        clock.append(time.perf_counter() - start)
        processor.append(processor_seconds() - used)
    return [
        single(f"a demo epoch of one node, {name}", "s", *values)
        for name, values in (("processor time", processor), ("by the clock", clock))
    ]


def rows(arguments: argparse.Namespace) -> Iterator[Row]:
    turns = arguments.repetitions
    yield from signatures(turns)
    with tempfile.TemporaryDirectory(prefix="hypermesh-bench-") as name:
        directory = Path(name)
        for k in arguments.k:
            yield from space(directory, k, turns)
        yield work("numpy", DEMO, products.multiply_numpy, turns)
        devices = [device for device, _ in opencl.devices()]
        if not devices:
            print("no OpenCL device here: the rows for OpenCL are left out")
        for device in devices:
            yield work(device, DEMO, opencl.multiplier(device), turns)
        yield elapsed(DEMO, turns)
        yield from memory_rows(turns, arguments.production)
        yield from asyncio.run(epoch(directory, turns))
    if arguments.production:
        yield work("numpy", PRODUCTION, products.multiply_numpy, 1)
        yield elapsed(PRODUCTION, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--production", action="store_true", help="also the production parameters; some minutes")
    parser.add_argument("--k", type=int, nargs="+", default=[DEMO.space_min_k], help="plot sizes")
    publish("proofs", rows(parser.parse_args()))


if __name__ == "__main__":
    main()
