"""Blocks executed while they are voted on: only what is decided counts, and it is what executing it then would give."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from hypermesh_ledger.abci.finalize_block import finalize_block
from hypermesh_ledger.abci.process_proposal import process_proposal
from hypermesh_ledger.ahead import Ahead
from hypermesh_ledger.core import Core, Pending
from hypermesh_ledger.execution import Block
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

from ...builders import allocation
from .test_core import core_of
from .world import Settled

BLOCK = Block(7, 1_000, b"h" * 32, [b"one", b"two"])


class Executing:
    """Says what it was asked to execute, in order; whether it ends, and how, is the test's word."""

    def __init__(self) -> None:
        self.begun: list[Block] = []
        self.dropped: list[Block] = []
        self.go = asyncio.Event()

    async def __call__(self, block: Block) -> bytes:
        self.begun.append(block)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.dropped.append(block)
            raise
        if block.height == 0:
            raise ValueError("no such block")
        return block.hash


@pytest_asyncio.fixture
async def executing() -> Executing:
    return Executing()


async def test_a_block_is_begun_when_nobody_waits_and_taken_once(executing: Executing) -> None:
    ahead = Ahead(executing)
    ahead.expect(BLOCK)
    await asyncio.sleep(0)
    assert executing.begun == []
    ahead.begin()
    ahead.begin()
    await asyncio.sleep(0)
    assert executing.begun == [BLOCK]
    taken = asyncio.create_task(ahead.of(replace(BLOCK, txs=list(BLOCK.txs))))
    await asyncio.sleep(0)
    assert not taken.done()
    executing.go.set()
    assert await taken == BLOCK.hash
    assert await ahead.of(BLOCK) is None


@pytest.mark.parametrize(
    "change", [{"hash": b"i" * 32}, {"time_ms": 1_001}, {"txs": [b"one"]}, {"height": 8}, {"round": 1}]
)
async def test_another_block_than_expected_is_none_of_it(executing: Executing, change: dict[str, object]) -> None:
    ahead = Ahead(executing)
    ahead.expect(BLOCK)
    ahead.begin()
    await asyncio.sleep(0)
    assert await ahead.of(replace(BLOCK, **change)) is None  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert executing.dropped == [BLOCK]
    assert await ahead.of(BLOCK) is None


async def test_the_next_proposal_takes_the_place_of_the_last(executing: Executing) -> None:
    ahead, other = Ahead(executing), replace(BLOCK, round=1)
    for block in (BLOCK, other):
        ahead.expect(block)
        ahead.begin()
        await asyncio.sleep(0)
    executing.go.set()
    assert await ahead.of(other) == other.hash
    assert (executing.begun, executing.dropped) == ([BLOCK, other], [BLOCK])


async def test_what_was_expected_but_not_begun_is_forgotten(executing: Executing) -> None:
    ahead = Ahead(executing)
    ahead.expect(BLOCK)
    assert await ahead.of(BLOCK) is None
    ahead.begin()
    await asyncio.sleep(0)
    assert executing.begun == []


async def test_what_failed_is_as_if_it_had_not_been_begun(executing: Executing) -> None:
    ahead, bad = Ahead(executing), replace(BLOCK, height=0)
    executing.go.set()
    ahead.expect(bad)
    ahead.begin()
    assert await ahead.of(bad) is None
    ahead.expect(bad)
    ahead.begin()
    await asyncio.sleep(0)
    ahead.drop()  # done already: nothing is logged of an exception that nobody saw
    assert await ahead.of(bad) is None


async def test_a_proposed_block_has_its_own_effect(settled: Settled, tmp_path: Path) -> None:
    """By ABCI: accepted, begun, decided; the same app hash as of one that comes unannounced, and executed once."""
    txs = [settled.allocate(allocation(settled.node, settled.cpu, f"new-{index}", 1)) for index in range(4)]
    proposed = abci.RequestProcessProposal(txs=txs, height=settled.height + 1, hash=b"h" * 32)
    proposed.time.FromMilliseconds(settled.now_ms + 10)
    decided = abci.RequestFinalizeBlock(txs=txs, height=settled.height + 1, hash=b"h" * 32)
    decided.time.FromMilliseconds(settled.now_ms + 10)
    answers = []
    for name, announced in (("announced", True), ("unannounced", False)):
        core, verifier = core_of(settled, tmp_path / name)
        counted = count(core)
        if announced:
            answer = await process_proposal(core, proposed)
            assert answer.status == abci.ResponseProcessProposal.ACCEPT
            assert counted == []
            core.ahead.begin()
            await asyncio.sleep(0)
            assert len(counted) == 1
            assert core.pending is None
            assert core.store.head.height == settled.height
        answers.append(await finalize_block(core, decided))
        assert len(counted) == 1
        await core.commit()
        assert core.store.head.app_hash == answers[-1].app_hash
        await verifier.close()
        core.store.close()
    assert answers[0] == answers[1]


async def test_a_refused_proposal_is_not_executed(settled: Settled, tmp_path: Path) -> None:
    core, verifier = core_of(settled, tmp_path / "state")
    counted = count(core)
    answer = await process_proposal(core, abci.RequestProcessProposal(txs=[b"none"], height=settled.height + 1))
    assert answer.status == abci.ResponseProcessProposal.REJECT
    core.ahead.begin()
    await asyncio.sleep(0.05)
    assert counted == []
    await verifier.close()
    core.store.close()


def count(core: Core) -> list[Block]:
    """Blocks that this core executes from now on."""
    counted: list[Block] = []
    execute: Callable[[Block], Awaitable[Pending]] = core._executed

    async def executed(block: Block) -> Pending:
        counted.append(block)
        return await execute(block)

    core._executed = executed  # type: ignore[method-assign, assignment]
    core.ahead = Ahead(executed)  # type: ignore[arg-type]
    return counted
