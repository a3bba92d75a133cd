"""Regions and groups: whole or not there, of the right size, zeroed, and gone when nobody is granted them any more.

The control groups are plain directories here, so that both versions are checked for what is written where; the real
ones are in tests/integration/proxy.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hypermesh.v1 import ledger_pb2
from hypermesh_agent.enforcement import cgroups, mounts, populate, populator
from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.enforcement.enforcer import Enforcer
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MemoryRegions, StorageRegions, available_memory

MIB = 1 << 20
MEMORY, STORAGE = ledger_pb2.ASSET_TYPE_MEMORY, ledger_pb2.ASSET_TYPE_STORAGE
CPU, GPU = ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_GPU


def grant(number: int, type_: int = STORAGE, amount: int = MIB) -> Grant:
    return Grant(number.to_bytes(32, "big"), type_, amount)


def inside(directory: Path) -> list[str]:
    return sorted(item.name for item in directory.iterdir())


@pytest.fixture
async def workers() -> AsyncIterator[Populator]:
    it = Populator()
    yield it
    await it.close()


class Plain(Controller):
    """A group of plain files, which vanish with it as the kernel's do."""

    def remove(self, name: str) -> bool:
        for file in (self.directory / name).iterdir():
            file.unlink()
        return super().remove(name)


class Charging(Plain):
    """A group that reports a given charge, as the kernel would."""

    charge = 0

    def memory_usage(self, name: str) -> int:
        return self.charge


# -- groups ----------------------------------------------------------------------------------------------


def test_version_1_is_found_below_the_nodes_own_group(tmp_path: Path) -> None:
    for name in ("memory", "cpu"):
        (tmp_path / name).mkdir()
    own = "4:memory:/node-1/kubepods/burstable/pod1/c1\n1:cpu,cpuacct:/node-1/kubepods/x\n0::/\n"
    found = cgroups.find(tmp_path, own)
    assert found.memory == Controller(tmp_path / "memory" / "node-1" / "hypermesh", 1)
    assert found.cpu == Controller(tmp_path / "cpu" / "node-1" / "hypermesh", 1)
    outside = cgroups.find(tmp_path, "4:memory:/user.slice/session\n1:cpu:/\n")
    assert outside.memory.directory == tmp_path / "memory" / "hypermesh"


def test_version_2_controllers_are_delegated_down_to_us(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    own = "0::/machines/node-1/kubepods.slice/kubepods-pod1.slice/cri-1.scope\n"
    found = cgroups.find(tmp_path, own)
    assert found.memory == Controller(tmp_path / "machines" / "node-1" / "hypermesh", 2)
    for directory in (tmp_path, tmp_path / "machines", tmp_path / "machines/node-1", found.memory.directory):
        assert (directory / "cgroup.subtree_control").exists()


def test_a_missing_controller_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io pids\n")
    with pytest.raises(EnforcementFailed, match="cgroup_enable=memory") as failure:
        cgroups.find(tmp_path, "0::/\n")
    assert failure.value.reason == "CgroupUnavailable"


@pytest.mark.parametrize("version", [1, 2])
def test_limits_are_written_where_the_kernel_reads_them(tmp_path: Path, version: int) -> None:
    controller = Controller(tmp_path / "hypermesh", version)
    name = grant(1).name
    group = controller.directory / name
    group.mkdir(parents=True)
    (group / "memory.swap.max").touch()
    (group / "memory.swappiness").touch()
    controller.make_memory(name, 64 * MIB)
    controller.make_cpu(name, 2500)
    limit = "memory.limit_in_bytes" if version == 1 else "memory.max"
    assert 64 * MIB < int((group / limit).read_text()) < 64 * MIB + 20 * MIB
    assert controller.cpu_millicores(name) == 2500
    if version == 2:
        assert (group / "memory.min").read_text() == str(64 * MIB)
        assert (group / "memory.swap.max").read_text() == "0"
        assert (group / "cpu.max").read_text() == "250000 100000"
    else:
        assert (group / "memory.swappiness").read_text() == "0"
    (group / ("memory.usage_in_bytes" if version == 1 else "memory.current")).write_text("4711\n")
    assert controller.memory_usage(name) == 4711
    assert controller.memory_usage(grant(2).name) == 0
    assert controller.cpu_millicores(grant(2).name) == 0
    assert controller.names() == [name]


@pytest.mark.parametrize("kept", ["max 100000", "50000 100000"])
def test_a_limit_that_the_kernel_does_not_hold_is_no_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.setattr(cgroups, "_write", lambda path, _: path.write_text(kept))
    with pytest.raises(EnforcementFailed, match=r"2500m were written and (0|500)m are in force") as failure:
        Plain(tmp_path, 2).make_cpu(grant(1).name, 2500)
    assert failure.value.reason == "LimitNotHeld"
    assert inside(tmp_path) == [], "nothing half-made is left"


def test_an_unlimited_group_counts_as_no_hold(tmp_path: Path) -> None:
    group = tmp_path / grant(1).name
    group.mkdir()
    (group / "cpu.max").write_text("max 100000\n")
    assert Controller(tmp_path, 2).cpu_millicores(grant(1).name) == 0


def test_the_smallest_quota_is_what_the_kernel_takes() -> None:
    assert cgroups.cpu_quota(1) == (1000, 100_000)
    assert cgroups.cpu_quota(1000) == (100_000, 100_000)


def test_removal_of_groups(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "hypermesh", 1)
    for number in range(3):
        (controller.directory / grant(number).name).mkdir(parents=True)
    assert controller.remove(grant(0).name)
    assert controller.remove(grant(0).name)
    controller.remove_all()
    assert not controller.directory.exists()
    controller.remove_all()


# -- populating ------------------------------------------------------------------------------------------


async def test_pages_are_made_by_a_child_that_joined_first(tmp_path: Path, workers: Populator) -> None:
    join = tmp_path / "cgroup.procs"
    join.touch()
    await workers.populate(tmp_path / "region", MIB, [join])
    assert join.read_text() == "0"
    assert (tmp_path / "region").stat().st_size == MIB
    assert (tmp_path / "region").stat().st_mode & 0o777 == 0o600


async def test_a_child_that_can_not_join_makes_nothing(tmp_path: Path, workers: Populator) -> None:
    with pytest.raises(EnforcementFailed, match="No such file"):
        await workers.populate(tmp_path / "region", MIB, [tmp_path / "missing" / "cgroup.procs"])
    assert not (tmp_path / "region").exists()


async def test_an_existing_file_is_never_taken_over(tmp_path: Path, workers: Populator) -> None:
    (tmp_path / "region").write_text("another tenant's")
    with pytest.raises(EnforcementFailed, match="exists"):
        await workers.populate(tmp_path / "region", MIB)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnforcementFailed):
        await workers.populate(tmp_path / "link", MIB)
    assert not (tmp_path / "elsewhere").exists()


async def test_many_at_once_and_again_after_the_process_died(tmp_path: Path, workers: Populator) -> None:
    await asyncio.gather(*(workers.populate(tmp_path / str(number), 4096) for number in range(50)))
    assert len(inside(tmp_path)) == 50
    assert workers._worker is not None
    process = workers._worker.process
    process.kill()
    await process.wait()
    await workers.populate(tmp_path / "after", 4096)
    assert (tmp_path / "after").exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """The processes that are started."""
    made: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def counted(*arguments: Any, **settings: Any) -> asyncio.subprocess.Process:
        made.append(await start(*arguments, **settings))
        return made[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    return made


async def test_requests_that_come_together_share_one_process(
    tmp_path: Path, started: list[asyncio.subprocess.Process]
) -> None:
    workers = Populator()
    await asyncio.gather(*(workers.populate(tmp_path / str(number), 4096) for number in range(8)))
    assert len(started) == 1
    await workers.close()
    assert started[0].returncode == 0


async def test_rest_ends_the_process_and_never_one_at_work(
    tmp_path: Path, started: list[asyncio.subprocess.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(populator, "_IDLE_S", 0.0)  # a rest is due after each answer, while others still wait
    workers = Populator()
    await asyncio.gather(*(workers.populate(tmp_path / str(number), 4096) for number in range(40)))
    assert len(inside(tmp_path)) == 40
    await asyncio.wait_for(asyncio.gather(*(process.wait() for process in started)), 20)
    await workers.close()


async def asked(workers: Populator) -> None:
    """Waits until somebody waits for the present process, some seconds at most."""
    for _ in range(2_000):
        if workers._worker is not None and workers._worker.waiting:
            return
        await asyncio.sleep(0.002)
    raise AssertionError("nobody asks")


async def test_the_end_of_one_process_fails_only_those_who_wait_for_it(
    tmp_path: Path, started: list[asyncio.subprocess.Process]
) -> None:
    workers = Populator()
    await workers.populate(tmp_path / "first", 4096)
    started[0].send_signal(signal.SIGSTOP)  # it takes the next request and does not answer
    lost = asyncio.create_task(workers.populate(tmp_path / "lost", 4096))
    await asked(workers)
    workers._worker = None
    await workers.populate(tmp_path / "second", 4096)
    started[1].send_signal(signal.SIGSTOP)
    waits = asyncio.create_task(workers.populate(tmp_path / "waits", 4096))
    await asked(workers)
    started[0].kill()
    with pytest.raises(EnforcementFailed, match="ended early"):
        await lost
    started[1].send_signal(signal.SIGCONT)
    await waits
    await workers.close()


def test_the_populating_program_alone(tmp_path: Path) -> None:
    requests = [
        {"path": str(tmp_path / "good"), "size": 8192, "join": []},
        {"path": str(tmp_path / "no" / "where"), "size": 8192, "join": []},
    ]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", populate.__file__],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answers = {answer["path"]: answer["status"] for answer in map(json.loads, ran.stdout.splitlines())}
    assert answers[str(tmp_path / "good")] == 0
    assert os.waitstatus_to_exitcode(answers[str(tmp_path / "no" / "where")]) == errno.ENOENT


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (9, "OutOfMemory"),
        (errno.ENOMEM << 8, "OutOfMemory"),
        (errno.ENOSPC << 8, "PoolFull"),
        (errno.EDQUOT << 8, "PoolFull"),
        (errno.EIO << 8, "PopulateFailed"),
        (11, "PopulateFailed"),
    ],
)
def test_what_a_childs_end_means(status: int, reason: str) -> None:
    failure = populator.explain(Path("/pool/x"), MIB, status)
    assert failure is not None
    assert failure.reason == reason
    assert populator.explain(Path("/pool/x"), MIB, 0) is None


# -- storage ---------------------------------------------------------------------------------------------


async def test_a_storage_region_has_its_blocks_reads_zero_and_comes_back_as_it_was(tmp_path: Path) -> None:
    regions = StorageRegions(tmp_path)
    region = await regions.ensure(grant(1))
    state = (tmp_path / grant(1).name).stat()
    assert (state.st_size, state.st_blocks * 512 >= MIB) == (MIB, True)
    assert await region.read(0, MIB) == bytes(MIB)
    await region.write(4096, b"tenant")
    again = await StorageRegions(tmp_path).ensure(grant(1))
    assert await again.read(4095, 8) == b"\0tenant\0"
    await regions.remove(grant(1).name)
    await regions.remove(grant(1).name)
    assert regions.names() == set()
    assert await (await regions.ensure(grant(1))).read(4096, 6) == bytes(6)


async def test_a_damaged_region_is_made_anew(tmp_path: Path) -> None:
    regions = StorageRegions(tmp_path)
    await regions.ensure(grant(1))
    os.truncate(tmp_path / grant(1).name, 4096)
    region = await regions.ensure(grant(1))
    assert await region.read(0, MIB) == bytes(MIB)


async def test_no_room_is_a_clear_reason_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(EnforcementFailed, match="no room") as failure:
        await StorageRegions(tmp_path).ensure(grant(1, amount=1 << 50))
    assert failure.value.reason == "PoolFull"
    assert inside(tmp_path) == []


async def test_cleaning_removes_the_dead_and_the_half_made_and_nothing_else(tmp_path: Path) -> None:
    regions = StorageRegions(tmp_path)
    for number in (1, 2):
        await regions.ensure(grant(number))
    (tmp_path / f"{grant(3).name}.part").touch()
    (tmp_path / f"{grant(1).name}.part").touch()
    (tmp_path / "lost+found").mkdir()
    removed = regions.clean([grant(1).name])
    assert sorted(removed) == sorted([grant(2).name, f"{grant(3).name}.part", f"{grant(1).name}.part"])
    assert regions.names() == {grant(1).name}
    assert (tmp_path / "lost+found").exists()


async def test_a_short_read_is_an_error_not_a_short_answer(tmp_path: Path) -> None:
    region = await StorageRegions(tmp_path).ensure(grant(1))
    os.truncate(tmp_path / grant(1).name, 100)
    with pytest.raises(OSError, match="100 of 4096"):
        await region.read(0, 4096)


# -- memory, with a directory in place of the tmpfs and of the kernel's group -----------------------------------


async def test_a_charge_that_is_not_there_is_refused_and_nothing_stays(tmp_path: Path, workers: Populator) -> None:
    groups = Charging(tmp_path / "groups", 1)
    (groups.directory / grant(1).name).mkdir(parents=True)
    (groups.directory / grant(1).name / "cgroup.procs").touch()
    regions = MemoryRegions(tmp_path / "memory", groups, workers)
    regions.directory.mkdir()
    with pytest.raises(EnforcementFailed, match="charges 0 of") as failure:
        await regions.ensure(grant(1, MEMORY))
    assert failure.value.reason == "ChargeWrong"
    assert inside(regions.directory) == []


async def test_more_than_the_machine_has_is_refused_before_anything_is_made(tmp_path: Path, workers: Populator) -> None:
    regions = MemoryRegions(tmp_path, Controller(tmp_path / "groups", 1), workers)
    with pytest.raises(EnforcementFailed, match="are available on this node") as failure:
        await regions.ensure(grant(1, MEMORY, amount=1 << 60))
    assert failure.value.reason == "OutOfMemory"
    assert inside(tmp_path) == []


def test_available_memory_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24684096 kB\nMemFree:         1000 kB\nMemAvailable:    2048 kB\n")
    assert available_memory(meminfo) == 2 * MIB
    meminfo.write_text("MemTotal:       24684096 kB\n")
    with pytest.raises(EnforcementFailed, match="MemAvailable"):
        available_memory(meminfo)


# -- all together ----------------------------------------------------------------------------------------


async def test_holds_and_a_missing_pool(tmp_path: Path, workers: Populator) -> None:
    cpu = Controller(tmp_path / "cpu", 2)
    memory = MemoryRegions(tmp_path / "memory", Controller(tmp_path / "groups", 2), workers)
    memory.directory.mkdir()
    enforcer = Enforcer(memory, None, cpu)
    assert await enforcer.ensure(grant(1, CPU, 3000)) is None
    assert await enforcer.ensure(grant(2, GPU, 1 << 30)) is None
    assert cpu.cpu_millicores(grant(1).name) == 3000
    with pytest.raises(EnforcementFailed, match="HYPERMESH_POOL"):
        await enforcer.ensure(grant(3, STORAGE))
    await enforcer.remove(grant(2, GPU))
    await enforcer.remove(grant(3, STORAGE))


def test_a_region_may_wait_for_its_pages_only_where_they_can_be_swapped() -> None:
    memory = Path("/var/lib/hypermesh/memory")
    line = "30 1 0:31 / /var/lib/hypermesh/memory rw,nosuid shared:5 - tmpfs hypermesh rw,size=100%"
    swaps = "Filename\tType\tSize\tUsed\tPriority\n"
    device = swaps + "/dev/sda2 partition 1048572 0 -2\n"
    assert mounts.may_swap(memory, line, device)
    assert not mounts.may_swap(memory, line, swaps), "no swap device"
    assert not mounts.may_swap(memory, line + ",noswap", device)


def test_mountinfo_tells_our_tmpfs_from_others() -> None:
    text = (
        "22 1 0:20 / /proc rw - proc proc rw\n"
        "30 1 0:31 / /var/lib/hypermesh/memory rw,nosuid shared:5 - tmpfs hypermesh rw,size=100%\n"
        "31 1 8:1 / /var/lib/hypermesh/pool rw - ext4 /dev/sda1 rw\n"
    )
    assert mounts.is_tmpfs(Path("/var/lib/hypermesh/memory"), text)
    assert not mounts.is_tmpfs(Path("/var/lib/hypermesh/pool"), text)
    assert not mounts.is_tmpfs(Path("/var/lib/hypermesh"), text)
