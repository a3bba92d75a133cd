"""When a block is made: at once for what waits or is due, else when time must go on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypermesh_clients import mirror
from hypermesh_ledger import application, home, supervisor
from hypermesh_ledger.abci import prepare_proposal as prepare_module
from hypermesh_ledger.abci.prepare_proposal import prepare_proposal
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Result
from hypermesh_ledger.execution.schedule import next_due
from hypermesh_ledger.laggards import Laggards
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

from ...builders import allocation
from .pooled import decoded
from .test_core import core_of
from .world import Settled

LONG_S = 60.0


@pytest.fixture
async def core(settled: Settled, tmp_path: Path) -> AsyncIterator[Core]:
    made, verifier = core_of(settled, tmp_path / "state")
    yield made
    await verifier.close()
    made.store.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle ledger that would wait longer than the test lasts, with nothing due meanwhile."""
    monkeypatch.setattr(prepare_module, "IDLE_S", LONG_S)
    monkeypatch.setattr(prepare_module, "next_due", lambda _: 1 << 60)


async def propose(core: Core, time_ms: int | None = None) -> list[bytes]:
    request = abci.RequestPrepareProposal(max_tx_bytes=1 << 20)
    time_ms = int(time.time() * 1000) if time_ms is None else time_ms
    request.time.seconds, request.time.nanos = time_ms // 1000, time_ms % 1000 * 1_000_000
    async with asyncio.timeout(LONG_S / 4):
        return list((await prepare_proposal(core, request)).txs)


def test_what_is_due(settled: Settled) -> None:
    """The end of the epoch, or of the first lease; when it is over, the next one."""
    asked = allocation(settled.node, settled.cpu, "leased", 1, lease_seconds=1)
    assert next_due(settled.state) == (settled.epoch.number + 1) * settled.genesis.proofs.epoch_ms
    assert settled.reason(settled.allocate(asked)) is None
    epoch_ends = (settled.epoch.number + 1) * settled.genesis.proofs.epoch_ms
    first = next_due(settled.state)
    assert first == min(epoch_ends, settled.now_ms + 1_000)
    settled.block(after_ms=first - settled.now_ms)
    assert next_due(settled.state) > first
    settled.block(after_ms=epoch_ends + 1_000 - settled.now_ms)
    assert next_due(settled.state) == (settled.epoch.number + 1) * settled.genesis.proofs.epoch_ms


@pytest.mark.usefixtures("patient")
async def test_what_waits_is_proposed_at_once_and_its_arrival_wakes(core: Core) -> None:
    proposing = asyncio.create_task(propose(core))
    await asyncio.sleep(0)
    core.pool.add(decoded("allocate", b"1"))
    assert await proposing == [b"1"]
    assert await propose(core) == [b"1"]


@pytest.mark.usefixtures("patient")
async def test_a_clock_that_stood_still_judges_nothing(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    core.pool.add(decoded("allocate", b"1"))
    outage_ms = (prepare_module.STALE_S + 5) * 1000
    assert await propose(core, int(time.time() * 1000) - outage_ms) == []
    core.pool.decide([Result(b"1", 1)], 0)
    monkeypatch.setattr(prepare_module, "FRESH_S", 0.0)  # any wait is too long
    proposing = asyncio.create_task(propose(core))
    await asyncio.sleep(0.01)
    core.pool.add(decoded("allocate", b"2"))
    assert await proposing == []


async def test_what_is_due_makes_an_empty_block_without_waiting(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "IDLE_S", LONG_S)
    now_ms = int(time.time() * 1000)
    for due_ms in (now_ms - 1, now_ms + 20):  # in this block, and in the one after
        monkeypatch.setattr(prepare_module, "next_due", lambda _, due_ms=due_ms: due_ms)
        assert await propose(core, now_ms) == []


@pytest.mark.usefixtures("patient")
async def test_every_other_block_is_empty_and_none_waits_while_somebody_is_behind(core: Core) -> None:
    core.laggards = Laggards()
    core.laggards.told(5, 9, time.monotonic())
    assert [await propose(core), await propose(core)] == [[], []]
    core.pool.add(decoded("allocate", b"1"))
    assert [await propose(core) for _ in range(4)] == [[], [b"1"], [], [b"1"]]


def test_nobody_waits_longer_than_is_fresh_where_a_gap_may_follow(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "next_due", lambda _: 1 << 60)
    assert prepare_module._patience(core, 0) == home.IDLE_S > prepare_module.FRESH_S
    core.laggards = Laggards()
    assert prepare_module._patience(core, 0) <= prepare_module.FRESH_S


def test_idle_fits_into_everybodys_patience() -> None:
    """CometBFT's for a proposal, and three intervals into what readiness, mirrors and the supervisor call a halt."""
    peered = home.configuration(home.Network("[::1]:1", "", None))
    for config, idle_s in ((home.configuration(None), home.IDLE_S), (peered, prepare_module.IDLE_WITH_PEERS_S)):
        found = re.search(r'^timeout_propose = "(\d+)s"$', config, re.MULTILINE)
        assert found is not None
        assert idle_s + 1 <= int(found[1]) <= 2 * idle_s
    assert min(application.SILENT_S, mirror.HALTED_S, supervisor.STALL_S) > home.IDLE_S * 3
