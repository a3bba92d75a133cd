"""Real memory and storage: a tmpfs, the kernel's own memory groups, a file system that is full, and kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from namespaces import run

from hypermesh.v1 import ledger_pb2
from hypermesh_agent.enforcement import cgroups, mounts
from hypermesh_agent.enforcement.cgroups import Cgroups, Controller
from hypermesh_agent.enforcement.enforcer import Enforcer
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MemoryRegions, StorageRegions

MIB = 1 << 20
MEMORY, STORAGE, CPU = ledger_pb2.ASSET_TYPE_MEMORY, ledger_pb2.ASSET_TYPE_STORAGE, ledger_pb2.ASSET_TYPE_CPU
CGROUP_ROOT = Path("/sys/fs/cgroup")


def grant(type_: int = MEMORY, amount: int = 64 * MIB) -> Grant:
    return Grant(os.urandom(32), type_, amount)


@pytest.fixture(scope="module")
def groups() -> Iterator[Cgroups]:
    """The host's real controllers, with our own groups under a name of this test run alone."""
    found = cgroups.find(CGROUP_ROOT, "")
    name = f"hypermesh-test-{os.getpid()}"
    made = Cgroups(
        Controller(found.memory.directory.parent / name, found.memory.version),
        Controller(found.cpu.directory.parent / name, found.cpu.version),
    )
    if found.memory.version == 2:
        made.memory.directory.mkdir()
        (made.memory.directory / "cgroup.subtree_control").write_text("+memory +cpu")
    yield made
    for controller in {made.memory.directory: made.memory, made.cpu.directory: made.cpu}.values():
        controller.remove_all()
        assert not controller.directory.exists()
    for controller in (found.memory, found.cpu):
        if controller.directory.exists() and not controller.names():
            controller.directory.rmdir()


@pytest.fixture
async def workers() -> AsyncIterator[Populator]:
    it = Populator()
    yield it
    await it.close()


@pytest.fixture
def memory(tmp_path: Path, groups: Cgroups, workers: Populator) -> Iterator[MemoryRegions]:
    directory = tmp_path / "memory"
    mounts.ensure_tmpfs(directory)
    mounts.ensure_tmpfs(directory)
    regions = MemoryRegions(directory, groups.memory, workers)
    yield regions
    regions.clean(())
    mounts.unmount(directory)
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def charged(controller: Controller, name: str) -> int:
    """The kernel's figure, read without our code."""
    file = "memory.usage_in_bytes" if controller.version == 1 else "memory.current"
    return int((controller.directory / name / file).read_text())


async def test_a_memory_region_is_charged_to_its_own_group_until_it_is_removed(
    memory: MemoryRegions, groups: Cgroups
) -> None:
    piece = grant()
    region = await memory.ensure(piece)
    usage = charged(groups.memory, piece.name)
    assert piece.amount <= usage <= piece.amount + 4 * MIB
    assert (groups.memory.directory / piece.name / "cgroup.procs").read_text() == ""
    assert await region.read(0, MIB) == bytes(MIB)
    await region.write(piece.amount - 5, b"hello")
    assert charged(groups.memory, piece.name) <= piece.amount + 4 * MIB, "writing makes no new pages"
    again = await memory.ensure(piece)
    assert await again.read(piece.amount - 5, 5) == b"hello"
    await memory.remove(piece.name)
    assert not (groups.memory.directory / piece.name).exists()
    assert memory.names() == set()


async def test_the_group_holds_its_region_and_no_more(memory: MemoryRegions, groups: Cgroups) -> None:
    piece = grant(amount=8 * MIB)
    await memory.ensure(piece)
    join = groups.memory.directory / piece.name / "cgroup.procs"
    glutton = f"open({str(join)!r}, 'w').write('0'); x = bytearray({256 * MIB}); print(len(x))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", glutton, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, said) == (-signal.SIGKILL, b"")


async def test_a_group_that_is_too_small_is_out_of_memory_and_nothing_stays(
    memory: MemoryRegions, groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "memory_limit", lambda size: 24 * MIB)
    piece = grant(amount=128 * MIB)
    with pytest.raises(EnforcementFailed) as failure:
        await memory.ensure(piece)
    assert failure.value.reason == "OutOfMemory"
    assert list(os.scandir(memory.directory)) == []
    assert not (groups.memory.directory / piece.name).exists()


async def test_a_tmpfs_that_is_full_is_out_of_memory(tmp_path: Path, groups: Cgroups, workers: Populator) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(directory))
    regions = MemoryRegions(directory, groups.memory, workers)
    with pytest.raises(EnforcementFailed, match="is full") as failure:
        await regions.ensure(grant(amount=32 * MIB))
    assert failure.value.reason == "OutOfMemory"
    assert list(os.scandir(directory)) == []
    mounts.unmount(directory)


async def test_kill_9_of_the_serving_process_keeps_every_byte(memory: MemoryRegions, groups: Cgroups) -> None:
    """Another process makes the region, writes, and is killed without warning; this one finds the bytes."""
    piece = grant()
    program = f"""
import asyncio, os, signal
from pathlib import Path
from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.enforcement.grants import Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MemoryRegions
async def main():
    groups = Controller(Path({str(groups.memory.directory)!r}), {groups.memory.version})
    regions = MemoryRegions(Path({str(memory.directory)!r}), groups, Populator())
    region = await regions.ensure(Grant(bytes.fromhex({piece.name!r}), {piece.type}, {piece.amount}))
    await region.write(12345, b"survives")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert charged(groups.memory, piece.name) >= piece.amount
    region = await memory.ensure(piece)
    assert await region.read(12345, 8) == b"survives"
    assert charged(groups.memory, piece.name) >= piece.amount


async def test_a_new_tenant_never_sees_old_bytes(memory: MemoryRegions) -> None:
    for _ in range(8):
        piece = grant(amount=16 * MIB)
        region = await memory.ensure(piece)
        for offset in range(0, piece.amount, MIB):
            assert await region.read(offset, MIB) == bytes(MIB)
            await region.write(offset, b"\xa5" * MIB)
        await memory.remove(piece.name)


async def test_leftovers_are_removed_at_the_next_start(memory: MemoryRegions, groups: Cgroups) -> None:
    kept, dead = grant(amount=MIB), grant(amount=MIB)
    for piece in (kept, dead):
        await memory.ensure(piece)
    (memory.directory / f"{grant().name}.part").write_bytes(b"half")
    groups.memory.make_memory(grant().name, MIB)
    removed = memory.clean([kept.name])
    assert dead.name in removed
    assert memory.names() == {kept.name}
    assert groups.memory.names() == [kept.name]


async def test_many_regions_at_once_sum_up_in_the_kernel(memory: MemoryRegions, groups: Cgroups) -> None:
    pieces = [grant(amount=MIB) for _ in range(100)]
    await asyncio.gather(*(memory.ensure(piece) for piece in pieces))
    assert all(charged(groups.memory, piece.name) >= MIB for piece in pieces)
    await asyncio.gather(*(memory.remove(piece.name) for piece in pieces))
    assert groups.memory.names() == []


async def test_a_full_pool_is_a_clear_reason_and_nothing_half_made(tmp_path: Path) -> None:
    image, pool = tmp_path / "disk", tmp_path / "pool"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", str(image))
    pool.mkdir()
    run("mount", "-o", "loop", str(image), str(pool))
    try:
        regions = StorageRegions(pool)
        first = grant(STORAGE, 20 * MIB)
        await regions.ensure(first)
        with pytest.raises(EnforcementFailed, match="has no room for") as failure:
            await regions.ensure(grant(STORAGE, 60 * MIB))
        assert failure.value.reason == "PoolFull"
        assert regions.names() == {first.name}
        assert not [item for item in os.listdir(pool) if item.endswith(".part")]  # noqa: PTH208
        await regions.remove(first.name)
        await regions.ensure(grant(STORAGE, 20 * MIB))
        del regions
    finally:
        run("umount", "-l", str(pool))


def test_a_cpu_hold_is_a_quota_in_the_kernel(groups: Cgroups, tmp_path: Path) -> None:
    piece = grant(CPU, 1500)
    groups.cpu.make_cpu(piece.name, piece.amount)
    if groups.cpu.version == 1:
        quota = int((groups.cpu.directory / piece.name / "cpu.cfs_quota_us").read_text())
        period = int((groups.cpu.directory / piece.name / "cpu.cfs_period_us").read_text())
    else:
        quota, period = map(int, (groups.cpu.directory / piece.name / "cpu.max").read_text().split())
    assert quota / period == 1.5
    assert groups.cpu.cpu_millicores(piece.name) == 1500
    assert groups.cpu.remove(piece.name)


async def test_the_enforcer_opens_with_everything_in_place(tmp_path: Path, workers: Populator) -> None:
    enforcer = Enforcer.open(tmp_path / "state", tmp_path / "pool", CGROUP_ROOT, workers)
    pieces = [grant(MEMORY, MIB), grant(STORAGE, MIB), grant(CPU, 100)]
    for piece in pieces:
        region = await enforcer.ensure(piece)
        assert (region is None) == (piece.type == CPU)
    assert enforcer.clean(piece.name for piece in pieces) == 0
    for piece in pieces:
        await enforcer.remove(piece)
    assert enforcer.clean(()) == 0
    mounts.unmount(tmp_path / "state" / "memory")
    assert not mounts.is_tmpfs(tmp_path / "state" / "memory", run("cat", "/proc/self/mountinfo"))
