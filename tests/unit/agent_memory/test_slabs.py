"""Filled memory in a real holder process: what it answers verifies, what is cut off is free and stays so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hypermesh.proofs import verify_memory
from hypermesh.proofs.challenges import memory_owner
from hypermesh.proofs.parameters import MEMORY_DEMO
from hypermesh.v1 import proofs_pb2
from hypermesh_agent.memory.slabs import AT_ONCE, Filling, HolderFailed, SlabGone, Slabs

SLAB = 8 << 20
ASSET, OTHER = b"a" * 32, b"b" * 32
OWNER = memory_owner("chain", b"n" * 32)
C, SEED = b"c" * 32, b"s" * 32
LIMIT_S = 60


def filling() -> Filling:
    params = proofs_pb2.MemoryParameters()
    params.CopyFrom(MEMORY_DEMO)
    params.slab_bytes, params.samples = SLAB, 32
    return Filling(OWNER, params)


@pytest_asyncio.fixture
async def slabs(tmp_path: Path) -> AsyncIterator[Slabs]:
    async with asyncio.timeout(LIMIT_S), Slabs(filling(), lambda: tmp_path / "group") as held:
        yield held


async def filled(slabs: Slabs, asset: bytes, count: int) -> None:
    while len(slabs.whole(asset)) < count:
        await slabs.fill(asset)


def memory_files(process: int | str) -> list[Path]:
    """Those that a process keeps open."""
    directory = Path(f"/proc/{process}/fd")
    return [entry for entry in directory.iterdir() if entry.is_symlink() and "memfd:hyper" in str(entry.readlink())]


def shared_pages(slabs: Slabs) -> int:
    """Bytes of memory files that the holder keeps open, as the kernel counts their pages."""
    return sum(entry.stat().st_blocks * 512 for entry in memory_files(slabs.pid))


def killed_at(slabs: Slabs) -> str:
    return Path(f"/proc/{slabs.pid}/oom_score_adj").read_text().strip()


async def test_what_is_filled_answers_and_the_verifier_takes_it(slabs: Slabs, tmp_path: Path) -> None:
    await filled(slabs, ASSET, 2)
    assert slabs.bytes_held() == shared_pages(slabs) == 2 * SLAB
    commitment = await slabs.answer(ASSET, C)
    assert (commitment.asset, commitment.slabs) == (ASSET, 2)
    proof = await slabs.open(commitment, C, SEED)
    verify_memory(OWNER, C, SEED, commitment, proof, slabs.filling.params)
    assert (tmp_path / "group").read_text() == "0"
    assert killed_at(slabs) == "1000", "the first that the kernel ends"


async def test_the_agent_keeps_nothing_of_it(slabs: Slabs) -> None:
    await filled(slabs, ASSET, 1)
    assert (len(memory_files(slabs.pid)), memory_files("self")) == (1, [])


async def test_what_is_cut_off_is_free_at_once_and_late_writes_are_refused(slabs: Slabs) -> None:
    await filled(slabs, ASSET, 2)
    while slabs.count(ASSET) < 3:
        await slabs.fill(ASSET)
    under_way = asyncio.create_task(slabs.fill(ASSET))
    await asyncio.sleep(0)
    assert await slabs.cut(ASSET, 1) == SLAB + AT_ONCE * 256 * 1024
    assert shared_pages(slabs) == SLAB
    await under_way
    assert shared_pages(slabs) == SLAB
    assert slabs.count(ASSET) == 1
    commitment = await slabs.answer(ASSET, C)
    assert commitment.slabs == 1
    await filled(slabs, ASSET, 2)
    assert len(memory_files(slabs.pid)) == 2
    again = await slabs.answer(ASSET, C)
    proof = await slabs.open(again, C, SEED)
    verify_memory(OWNER, C, SEED, again, proof, slabs.filling.params)


async def test_answers_can_be_opened_when_the_memory_has_gone(slabs: Slabs) -> None:
    await filled(slabs, ASSET, 1)
    commitment = await slabs.answer(ASSET, C)
    await slabs.cut(ASSET, 0)
    assert (slabs.assets(), shared_pages(slabs)) == ([], 0)
    proof = await slabs.open(commitment, C, SEED)
    verify_memory(OWNER, C, SEED, commitment, proof, slabs.filling.params)
    with pytest.raises(SlabGone):
        await slabs.open(commitment, C, SEED)


async def test_a_question_to_what_is_cut_off_meanwhile_has_no_answer(slabs: Slabs) -> None:
    """Also when the number of its file is that of another by the time of its turn."""
    await filled(slabs, ASSET, 2)
    busy = asyncio.create_task(slabs.fill(OTHER))
    await asyncio.sleep(0)
    answering = asyncio.create_task(slabs.answer(ASSET, C))
    await asyncio.sleep(0)
    await slabs.cut(ASSET, 1)
    with pytest.raises(SlabGone):
        await answering
    await busy
    await filled(slabs, OTHER, 1)
    commitment = await slabs.answer(ASSET, C)
    assert commitment.slabs == 1
    with pytest.raises(SlabGone):
        await slabs.answer(b"-" * 32, C)


async def test_two_memories_of_a_node_are_filled_apart(slabs: Slabs) -> None:
    await filled(slabs, ASSET, 1)
    await filled(slabs, OTHER, 1)
    first, second = await slabs.answer(ASSET, C), await slabs.answer(OTHER, C)
    assert first.root != second.root
    proof = await slabs.open(first, C, SEED)
    verify_memory(OWNER, C, SEED, first, proof, slabs.filling.params)


async def test_a_holder_that_is_killed_says_so_and_has_freed_everything(slabs: Slabs) -> None:
    await filled(slabs, ASSET, 1)
    os.kill(slabs.pid, 9)
    with pytest.raises(HolderFailed, match="ran out of memory"):
        await slabs.answer(ASSET, C)
    assert await slabs.cut(ASSET, 0) == SLAB
