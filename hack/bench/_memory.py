"""Rows about proofs of memory: what the honest pay, what a verifier pays, and what a cheat would have to pay.

A cheat that holds nothing makes every block again between challenge and deadline, side by side on all its cores; so its
cores are bytes / (rate of one core × deadline). The rate is that of the reference implementation on this machine. What
runs it faster (AVX-512, a GPU) divides the cores by as much: docs/concepts/proofs.md says by how much at most.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _rows import Row, compared, single

from hypermesh.proofs import fill, memory, verify_memory
from hypermesh.proofs.challenges import memory_key, memory_question
from hypermesh.proofs.parameters import MEMORY_DEMO, MEMORY_PRODUCTION
from hypermesh.v1.proofs_pb2 import MemoryCommitment, MemoryParameters
from hypermesh_agent.memory.slabs import Filling, Slabs

NODE, ASSET, CHALLENGE, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32
TRIED = 256
"""Blocks made to measure a rate: 64 MiB."""
PASSES = (6, 12, 24)
CLAIMS_GIB = (1, 16, 64, 256)


def rows(repetitions: int, production: bool) -> Iterator[Row]:
    """By processor time where one process works, by the clock where two do; a whole GiB only for `production`."""
    rates = {}
    for passes in PASSES:
        seconds = [_made(passes) for _ in range(repetitions)]
        one = single(f"memory block of 256 KiB, t={passes}: make again", "ms", *(1000 * s / TRIED for s in seconds))
        yield one
        rates[passes] = TRIED * 256 / 1024 / 1024 / (one["value"] * TRIED / 1000)
        yield single(f"memory fill, t={passes}, one core", "GiB/s", rates[passes])
    with ProcessPoolExecutor(2) as pool:
        both = []
        for _ in range(repetitions):
            start = time.perf_counter()
            list(pool.map(_made, (PASSES[0], PASSES[0])))
            both.append(2 * TRIED / 4096 / (time.perf_counter() - start))
    load = os.getloadavg()[0]
    yield single(f"memory fill, t={PASSES[0]}, two processes by the clock (load {load:.0f})", "GiB/s", *both)
    yield from proven("demo", MEMORY_DEMO, 4, repetitions)
    yield from asyncio.run(held("demo", MEMORY_DEMO, 4))
    if production:
        yield from proven("production", MEMORY_PRODUCTION, 16, 1)
        yield from asyncio.run(held("production", MEMORY_PRODUCTION, 16))
    deadline = MEMORY_PRODUCTION.deadline_ms / 1000
    for passes in PASSES:
        for claim in CLAIMS_GIB:
            name = f"cheat: cores that make {claim} GiB again in {deadline:g} s, t={passes}"
            yield single(name, "cores", claim / rates[passes] / deadline)


def proven(label: str, params: MemoryParameters, slabs: int, repetitions: int) -> Iterator[Row]:
    """Answers of a filled memory against verifying them. Its size is that of the claim; nothing is scaled."""
    size, count = params.block_kib * 1024, memory.blocks(slabs, params)
    key, question = memory_key(NODE, ASSET, params), memory_question(CHALLENGE, ASSET, slabs)
    name = f"memory {label}, {count * size >> 20} MiB, s={params.samples}"
    with mmap.mmap(-1, count * size) as room, memoryview(room) as view:
        for number in range(count):
            with view[number * size : (number + 1) * size] as into:
                fill.fill_block(key, number, params.block_kib, params.passes, into)
        answering, checking, sizes = [], [], []
        for _ in range(repetitions):
            start = time.process_time()
            answers = []
            for number in range(count):
                with view[number * size : (number + 1) * size] as block:
                    answers.append(memory.answer(question, number, block, params))
            levels = memory.tree(answers)
            answering.append(1000 * (time.process_time() - start))
            commitment = MemoryCommitment(asset=ASSET, slabs=slabs, root=levels[-1][0])
            proof = memory.open_blocks(levels, SEED, commitment, params)
            sizes.append(proof.ByteSize() / 1000)
            start = time.process_time()
            verify_memory(NODE, CHALLENGE, SEED, commitment, proof, params)
            checking.append(1000 * (time.process_time() - start))
    yield compared(f"{name}: verify", "ms", checking, "answer", answering)
    yield single(f"{name}: proof", "KB", *sizes)
    yield single(f"{name}: credited", "MiB", memory.shown_bytes(slabs, params) / (1 << 20))


async def held(label: str, params: MemoryParameters, slabs: int) -> list[Row]:
    """The agent's way: a holder process at the lowest priority fills, and gives everything back. By the clock."""
    name = f"agent's memory {label}, {slabs * params.slab_bytes >> 20} MiB"
    async with Slabs(Filling(NODE, params), lambda: Path(os.devnull)) as kept:
        start = time.perf_counter()
        while len(kept.whole(ASSET)) < slabs:
            await kept.fill(ASSET)
        filled = time.perf_counter()
        await kept.answer(ASSET, CHALLENGE)
        answered = time.perf_counter()
        resident = _resident(kept.pid)
        before = time.perf_counter()
        await kept.cut(ASSET, 0)
        cut = time.perf_counter()
    return [
        single(f"{name}: fill", "s", filled - start),
        single(f"{name}: answer", "ms", 1000 * (answered - filled)),
        single(f"{name}: give all back", "ms", 1000 * (cut - before)),
        single(f"{name}: the holder's own code and data", "MiB", resident),
    ]


def _resident(process: int) -> float:
    """MiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def _made(passes: int) -> float:
    """Processor seconds that TRIED blocks take."""
    key, room = memory_key(NODE, ASSET, MEMORY_PRODUCTION), bytearray(256 * 1024)
    start = time.process_time()
    for number in range(TRIED):
        fill.fill_block(key, number, 256, passes, memoryview(room))
    return time.process_time() - start
