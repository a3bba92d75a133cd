"""Bursts, failures and endings: one allocation's trouble stays its own, and what failed is tried again.

Keeper, pipeline, programmer, regions and mirror are the real ones; the kernel's table is the in-memory double.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from memory_kernel import MemoryKernel
from proxy_world import FedMirror, Signed, World, issue

from hypermesh import operations
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.directory import AssetDirectory
from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.enforcement.enforcer import Enforcer
from hypermesh_agent.enforcement.grants import Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MemoryRegions, Region, StorageRegions
from hypermesh_agent.proxy import pipeline as pipelines
from hypermesh_agent.proxy.allocations import Keeper
from hypermesh_agent.proxy.outcomes import Outcome
from hypermesh_agent.proxy.pipeline import Pipeline
from hypermesh_agent.proxy.programming import Programmer
from hypermesh_agent.proxy.service import _Listener
from hypermesh_agent.proxy.verification import Standpoint
from hypermesh_agent.serving.authorization import Denial, Denied, Desk

NODE = IPv6Address("2001:db8::1")
STORAGE, CPU, GPU = ledger_pb2.ASSET_TYPE_STORAGE, ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_GPU


async def settled(predicate: Callable[[], bool]) -> None:
    """Waits until it holds, some ten seconds at most."""
    for _ in range(2_000):
        if predicate():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


@dataclass
class Line:
    """A running pipeline and what it reported."""

    mirror: FedMirror
    kernel: MemoryKernel
    desk: Desk
    keeper: Keeper
    pipeline: Pipeline
    regions: Path
    told: dict[bytes, list[Outcome]] = field(default_factory=dict)

    def tell(self, allocation_id: bytes, outcome: Outcome) -> None:
        self.told.setdefault(allocation_id, []).append(outcome)

    def commit(self, *signed: Signed) -> None:
        self.mirror.commit(*signed)
        for item in signed:
            self.pipeline.mark(item.record.allocation_id)

    def end(self, signed: Signed) -> None:
        self.mirror.end(signed)
        self.pipeline.mark(signed.record.allocation_id)

    async def reason(self, signed: Signed, wanted: str) -> None:
        """Waits until the newest word on it has this reason."""
        await settled(lambda: self.reasons(signed)[-1:] == [wanted])

    def reasons(self, signed: Signed) -> list[str]:
        return [str(outcome.reason) for outcome in self.told.get(signed.record.allocation_id, [])]


def a_line(world: World, tmp_path: Path, mirror: FedMirror, kernel: MemoryKernel, here: Standpoint) -> Line:
    """Another agent process over the same ledger, kernel and directories; nothing is taken over yet."""
    desk = Desk("node-1", world.here.prefix)
    (tmp_path / "regions").mkdir(exist_ok=True)
    (tmp_path / "memory").mkdir(exist_ok=True)
    memory = MemoryRegions(tmp_path / "memory", Controller(tmp_path / "groups", 1), Populator())
    enforcer = Enforcer(memory, StorageRegions(tmp_path / "regions"), Controller(tmp_path / "cpu", 2))
    directory = AssetDirectory("node-1", world.here.key_id)
    keeper = Keeper(mirror, here, enforcer, desk, directory, "node-1", (NODE.packed, 7443))
    programmer = Programmer(kernel, world.here.prefix)
    made = Line(mirror, kernel, desk, keeper, None, tmp_path / "regions")  # type: ignore[arg-type]
    made.pipeline = Pipeline(keeper, programmer, made.tell, "node-1")
    return made


@contextlib.asynccontextmanager
async def running(made: Line) -> AsyncIterator[Line]:
    task = asyncio.create_task(made.pipeline.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def line(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    monkeypatch.setattr(pipelines, "_RETRY_S", (0.05, 0.1))
    made = a_line(world, tmp_path, FedMirror(world), MemoryKernel(), world.here)
    await made.pipeline.take_over()
    async with running(made):
        yield made


def metadata(signed: Signed) -> list[tuple[str, str | bytes]]:
    address = str(IPv6Address(signed.operation.address))
    return [("hypermesh-address", address), ("authorization", f"Bearer {signed.token}")]


async def test_a_burst_is_few_transactions(line: Line, world: World) -> None:
    burst = [world.allocation(GPU, 1) for _ in range(200)]
    line.kernel.transactions.clear()
    line.commit(*burst)
    for signed in burst:
        await line.reason(signed, "Programmed")
    assert sum(added for added, _ in line.kernel.transactions) == 200
    assert len(line.kernel.transactions) <= 3
    assert all(line.desk.authorize(metadata(signed), 0) for signed in burst)


async def test_told_twice_changes_nothing(line: Line, world: World) -> None:
    signed = world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    before = list(line.kernel.transactions)
    line.commit(signed)
    await asyncio.sleep(0.1)
    assert line.kernel.transactions == before
    assert line.reasons(signed) == ["Programmed"]


async def test_one_that_can_not_be_enforced_does_not_hold_up_the_others(line: Line, world: World) -> None:
    good, huge = world.allocation(STORAGE), world.allocation(STORAGE, amount=1 << 50)
    line.commit(huge, good)
    await line.reason(good, "Programmed")
    await line.reason(huge, "PoolFull")
    assert "has no room for" in line.told[huge.record.allocation_id][0].message
    assert line.kernel.table is not None
    assert len(line.kernel.table) == 1
    with pytest.raises(Denied):
        line.desk.authorize(metadata(huge), 0)


async def test_what_failed_is_tried_again(line: Line, world: World) -> None:
    signed = world.allocation(STORAGE)
    line.regions.rmdir()
    line.commit(signed)
    await line.reason(signed, "PopulateFailed")
    line.regions.mkdir()
    await line.reason(signed, "Programmed")


async def test_a_refusing_kernel_is_reported_and_tried_again(line: Line, world: World) -> None:
    signed = world.allocation(GPU, 1)
    line.kernel.refuse = OSError(errno.ENOMEM, "Cannot allocate memory")
    line.commit(signed)
    await line.reason(signed, "ProgrammingFailed")
    assert "Cannot allocate memory" in line.told[signed.record.allocation_id][-1].message
    line.kernel.refuse = None
    await line.reason(signed, "Programmed")


async def test_the_end_takes_everything_down(line: Line, world: World) -> None:
    signed = world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    name = signed.record.allocation_id.hex()
    assert (line.regions / name).exists()
    line.end(signed)
    await line.reason(signed, "AllocationEnded")
    await settled(lambda: not line.kernel.table)
    assert not (line.regions / name).exists()
    with pytest.raises(Denied, match="has ended"):
        line.desk.authorize(metadata(signed), 0)
    assert not line.keeper.prepared


async def test_an_end_in_the_same_moment_leaves_nothing(line: Line, world: World) -> None:
    burst = [world.allocation(STORAGE, amount=4096) for _ in range(20)]
    line.commit(*burst)
    await asyncio.sleep(0)
    for signed in burst:
        line.end(signed)
    for signed in burst:
        await line.reason(signed, "AllocationEnded")
    await settled(lambda: not line.kernel.table and not any(line.regions.iterdir()))
    assert not line.keeper.prepared


async def test_an_older_or_a_forged_record_takes_nothing_from_the_one_that_stands(line: Line, world: World) -> None:
    signed = world.allocation(GPU, 1)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    old = ledger_pb2.AllocationRecord()
    old.CopyFrom(signed.record)
    old.height -= 1
    line.commit(Signed(old, signed.token))
    forged = ledger_pb2.AllocationRecord()
    forged.CopyFrom(signed.record)
    forged.height, forged.expires_ms = 99, forged.expires_ms + 3_600_000
    line.commit(Signed(forged, signed.token))
    await asyncio.sleep(0.1)
    assert line.reasons(signed) == ["Programmed"]
    assert line.desk.authorize(metadata(signed), 0).expires_ms == signed.record.expires_ms
    assert line.kernel.table


# -- after a restart -------------------------------------------------------------------------------------


def denial(line: Line, signed: Signed) -> Denial:
    with pytest.raises(Denied) as denied:
        line.desk.authorize(metadata(signed), 0)
    return denied.value.reason


async def test_a_restart_expects_what_the_kernel_still_translates(line: Line, world: World, tmp_path: Path) -> None:
    """Under a stricter threshold too: it is for those who are not in yet."""
    signed, late = world.allocation(STORAGE), world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    line.mirror.commit(late)
    again = a_line(world, tmp_path, line.mirror, line.kernel, world.seen_from(minimum_trust=5001))
    before = list(line.kernel.transactions)
    await again.pipeline.take_over()
    assert line.kernel.transactions == before, "nothing is touched"
    assert denial(again, signed) is Denial.OPENING
    async with running(again):
        await again.reason(signed, "Programmed")
        assert again.desk.authorize(metadata(signed), 0)
        await again.reason(late, "TrustTooLow")


async def test_a_restart_under_a_renewed_certificate(line: Line, world: World, tmp_path: Path) -> None:
    signed = world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    public, begin = world.operator.keypair.public, signed.record.granted_ms // 1000 + 1
    renewed = issue(world.root, public, trust_pb2.ROLE_OPERATOR, "hypermesh-operator", not_before=begin)
    record = ledger_pb2.NodeRecord(key_id=world.operator.key_id, certificate=renewed, trust_score=5000)
    line.mirror.feed(ledger_pb2.Change(node=record))
    again = a_line(world, tmp_path, line.mirror, line.kernel, world.here)
    await again.pipeline.take_over()
    assert line.kernel.table
    async with running(again):
        await again.reason(signed, "Programmed")


async def test_what_ended_while_nobody_looked_is_told(line: Line, world: World, tmp_path: Path) -> None:
    ended = world.allocation(STORAGE)
    line.mirror.commit(ended)
    line.mirror.end(ended)
    again = a_line(world, tmp_path, line.mirror, MemoryKernel(), world.here)
    await again.pipeline.take_over()
    async with running(again):
        await again.reason(ended, "AllocationEnded")


async def test_an_end_before_it_was_prepared_again_takes_everything_down(
    line: Line, world: World, tmp_path: Path
) -> None:
    signed = world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    again = a_line(world, tmp_path, line.mirror, line.kernel, world.here)
    await again.pipeline.take_over()
    again.end(signed)
    async with running(again):
        await again.reason(signed, "AllocationEnded")
        await settled(lambda: not line.kernel.table)
    assert not any(again.regions.iterdir())
    assert denial(again, signed) is Denial.LEASE_ENDED


async def test_what_can_not_be_prepared_again_is_not_translated_and_keeps_its_bytes(
    line: Line, world: World, tmp_path: Path
) -> None:
    signed = world.allocation(STORAGE)
    line.commit(signed)
    await line.reason(signed, "Programmed")
    again = a_line(world, tmp_path, line.mirror, line.kernel, world.here)
    await again.pipeline.take_over()
    again.regions.rename(tmp_path / "away")
    async with running(again):
        await again.reason(signed, "PopulateFailed")
        await settled(lambda: not line.kernel.table)
        assert denial(again, signed) is Denial.OPENING
        (tmp_path / "away").rename(again.regions)
        await again.reason(signed, "Programmed")
        assert line.kernel.table
    assert (again.regions / signed.record.allocation_id.hex()).exists()


# -- a ledger that lost its volume began another chain ------------------------------------------------------


@pytest.fixture
def heard(line: Line, world: World) -> Line:
    """The line hears the mirror as the service lets it; reports and routes are not looked at."""
    unused = cast(Any, SimpleNamespace(forget=lambda _: None, reconsider=lambda: None, notice=lambda: None))
    line.mirror.subscribe(_Listener(world.here.key_id, line.keeper, line.pipeline, unused, unused))
    return line


def granted_anew(world: World, signed: Signed, type_: int = STORAGE, **record: int) -> Signed:
    """The operator allocates the same Allocation on another chain; with another type, another asset was chosen."""
    operation, anew = operations.decode(signed.record.envelope).operation, world.operation(type_)
    operation.chain_id = "another"
    operation.allocate.asset_id = anew.allocate.asset_id
    operation.allocate.address = world.address(type_, operation.allocate.address_counter)
    made = world.signed(operation, height=2, **record)
    return Signed(made.record, signed.token)


async def test_what_was_signed_for_a_lost_chain_is_worth_nothing(heard: Line, world: World) -> None:
    old, new = world.allocation(STORAGE), granted_anew(world, world.allocation(STORAGE))
    heard.mirror.begin_anew("another", new, old)
    await heard.reason(new, "Programmed")
    await heard.reason(old, "WrongChain")


async def test_the_same_allocation_ends_with_its_chain_and_comes_on_the_next(heard: Line, world: World) -> None:
    signed = world.allocation(STORAGE, height=5000)
    heard.mirror.commit(signed)
    await heard.reason(signed, "Programmed")
    heard.mirror.begin_anew("another")
    await settled(lambda: not heard.kernel.table and not any(heard.regions.iterdir()))
    heard.mirror.commit(granted_anew(world, signed))
    await settled(lambda: heard.reasons(signed) == ["Programmed", "Programmed"])
    assert heard.kernel.table


async def test_the_same_allocation_granted_anew_before_the_node_looked_keeps_its_bytes(
    heard: Line, world: World
) -> None:
    signed = world.allocation(STORAGE, height=5000)
    heard.mirror.commit(signed)
    await heard.reason(signed, "Programmed")
    region = heard.desk.authorize(metadata(signed), 0).region
    assert region is not None
    await region.write(0, b"kept")
    anew = granted_anew(
        world, signed, expires_ms=signed.record.expires_ms + 2_000, granted_ms=signed.record.granted_ms + 2_000
    )
    heard.mirror.begin_anew("another", anew)
    await settled(lambda: heard.reasons(signed) == ["Programmed", "Programmed"])
    served = heard.desk.authorize(metadata(signed), 0)
    assert served.expires_ms == anew.record.expires_ms
    assert served.region is not None
    assert await served.region.read(0, 4) == b"kept"


async def test_granted_anew_on_another_asset_it_leaves_the_first(heard: Line, world: World) -> None:
    signed = world.allocation(STORAGE, height=5000)
    heard.mirror.commit(signed)
    await heard.reason(signed, "Programmed")
    anew = granted_anew(world, signed, GPU)
    heard.mirror.begin_anew("another", anew)
    await settled(lambda: heard.reasons(signed) == ["Programmed", "Programmed"])
    assert heard.kernel.table is not None
    assert [key.address for key in heard.kernel.table] == [anew.operation.address]
    assert not any(heard.regions.iterdir())
    assert denial(heard, signed) is Denial.LEASE_ENDED
    assert heard.desk.authorize(metadata(anew), 0)


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_chain_is_lost_while_the_region_is_made(
    heard: Line, world: World, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Granted anew later, or in the new chain's first copy."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    ensure = Enforcer.ensure

    async def held_up(enforcer: Enforcer, grant: Grant) -> Region | None:
        begun.set()
        await go_on.wait()
        return await ensure(enforcer, grant)

    monkeypatch.setattr(Enforcer, "ensure", held_up)
    signed = world.allocation(STORAGE, height=5000)
    anew = granted_anew(world, signed)
    heard.mirror.commit(signed)
    await begun.wait()
    heard.mirror.begin_anew("another", *([anew] if at_once else []))
    go_on.set()
    if not at_once:
        await settled(lambda: not heard.pipeline._busy and not heard.pipeline._dirty)
        assert not any(heard.regions.iterdir()), "what was made for the lost chain is gone"
        assert not heard.kernel.table
        heard.mirror.commit(anew)
    await heard.reason(signed, "Programmed")
    assert heard.desk.authorize(metadata(signed), 0).expires_ms == anew.record.expires_ms
    assert heard.reasons(signed) == ["Programmed"]
