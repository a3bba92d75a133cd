"""Control groups of allocations, version 1 and 2: one memory group a memory region, one cpu group a CPU hold.

    <mount of the controller>/<the node's own parent>/hypermesh/<allocation id>

The kernel charges a page to the group of the process that first touches it, so a region is populated by a child that
joined its group; the charge then stays, without any process, until the pages go. Interface: kernel documentation
admin-guide/cgroup-v1/memory.rst, sched-bwc.rst and admin-guide/cgroup-v2.rst. Only plain files are read and written.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypermesh_agent.enforcement.grants import EnforcementFailed, is_name

NAME: Final = "hypermesh"
FILLED: Final = "filled"
"""Beside the allocations': the group of the node's filled free memory."""
_PERIOD_US: Final = 100_000
_MINIMUM_QUOTA_US: Final = 1_000
_SLACK_BYTES: Final = 16 << 20
"""For the populating child itself and for kernel memory that is charged along (page tables, the file's index)."""


def memory_limit(size: int) -> int:
    """Limit of a region's group in bytes: its pages, what their index costs (576 bytes for 64 pages), and the child."""
    return size + size // 256 + _SLACK_BYTES


def cpu_quota(millicores: int) -> tuple[int, int]:
    """(quota, period) in microseconds of processor time."""
    return max(_MINIMUM_QUOTA_US, millicores * _PERIOD_US // 1000), _PERIOD_US


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller's directory for our groups."""

    directory: Path
    version: int

    def names(self) -> list[str]:
        """Allocation ids (hex) that have a group."""
        try:
            return [item.name for item in self.directory.iterdir() if is_name(item.name) and item.is_dir()]
        except FileNotFoundError:
            return []

    def join_file(self, name: str) -> Path:
        """Writing 0 here puts the writer into the group."""
        return self.directory / name / "cgroup.procs"

    def make_memory(self, name: str, size: int, *, spared: bool = True) -> None:
        """A group that may hold a region of `size` bytes and no more, kept out of swap: by the limit of version 2,
        by preference of version 1 (swappiness 0 swaps only when the group can't go on otherwise). spared: kept from
        reclaim, by version 2."""
        group = self._make(name)
        limit = str(memory_limit(size))
        if self.version == 1:
            _write(group / "memory.limit_in_bytes", limit)
            if (group / "memory.swappiness").exists():
                _write(group / "memory.swappiness", "0")
            return
        _write(group / "memory.max", limit)
        _write(group / "memory.min", str(size if spared else 0))
        if (group / "memory.swap.max").exists():
            _write(group / "memory.swap.max", "0")

    def make_filled(self, size: int) -> None:
        """The group of `size` bytes of filled free memory: limited as a region's, but never spared from reclaim."""
        self.make_memory(FILLED, size, spared=False)

    def memory_usage(self, name: str) -> int:
        """Bytes charged now; 0 when there is no such group."""
        file = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        try:
            return int((self.directory / name / file).read_text())
        except (FileNotFoundError, OSError):
            return 0

    def make_cpu(self, name: str, millicores: int) -> None:
        """A group whose processes together get at most so much processor time; none when that can't be held."""
        self._make(name)
        try:
            self._limit_cpu(name, millicores)
        except EnforcementFailed:
            self.remove(name)
            raise

    def _limit_cpu(self, name: str, millicores: int) -> None:
        group = self.directory / name
        quota, period = cpu_quota(millicores)
        if self.version == 1:
            _write(group / "cpu.cfs_period_us", str(period))
            _write(group / "cpu.cfs_quota_us", str(quota))
        else:
            _write(group / "cpu.max", f"{quota} {period}")
        written, held = quota * 1000 // period, self.cpu_millicores(name)
        if held != written:
            text = f"{group}: {written}m were written and {held}m are in force: stop what else writes there"
            raise EnforcementFailed("LimitNotHeld", text)

    def cpu_millicores(self, name: str) -> int:
        """The limit in force, read back; 0 for none."""
        group = self.directory / name
        try:
            if self.version == 1:
                quota = int((group / "cpu.cfs_quota_us").read_text())
                period = int((group / "cpu.cfs_period_us").read_text())
            else:
                words = (group / "cpu.max").read_text().split()
                quota, period = (-1 if words[0] == "max" else int(words[0])), int(words[1])
        except FileNotFoundError:
            return 0
        return max(0, quota * 1000 // period)

    def remove(self, name: str) -> bool:
        """Removes the group; False when a process is still in it (try again later)."""
        try:
            (self.directory / name).rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def remove_all(self) -> None:
        """Removes our groups, then their common parent, which refuses (OSError) while a process is in one of them."""
        for name in (*self.names(), FILLED):
            self.remove(name)
        if self.directory.exists():
            self.directory.rmdir()

    def _make(self, name: str) -> Path:
        group = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise _unavailable(group, error) from error
        return group


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Both controllers of this node."""

    memory: Controller
    cpu: Controller


def find(root: Path, own: str) -> Cgroups:
    """The controllers under `root` (usually /sys/fs/cgroup); `own` is the text of /proc/self/cgroup.

    Our groups go beside the kubelet's, so that a node that lives in a group of its own keeps all of them in it. Raises
    EnforcementFailed when a controller is not there.
    """
    return Cgroups(_controller(root, own, "memory"), _controller(root, own, "cpu"))


def _controller(root: Path, own: str, name: str) -> Controller:
    first = root / name
    if first.is_dir() and not (root / "cgroup.controllers").exists():
        return Controller(first / _node_parent(own, name) / NAME, 1)
    try:
        available = (root / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        available = []
    if name not in available:
        raise EnforcementFailed(
            "CgroupUnavailable",
            f"cgroup controller {name} is not in {root}: mount it (boot with cgroup_enable={name}) "
            "and give the agent the host's /sys",
        )
    parent = root / _node_parent(own, "")
    for directory in (root, *_below(root, parent), parent / NAME):
        _delegate(directory, name)
    return Controller(parent / NAME, 2)


def _below(root: Path, path: Path) -> list[Path]:
    parts = path.relative_to(root).parts
    return [root.joinpath(*parts[: count + 1]) for count in range(len(parts))]


def _delegate(directory: Path, name: str) -> None:
    """Lets the children of a version 2 group use the controller."""
    try:
        directory.mkdir(exist_ok=True)
        _write(directory / "cgroup.subtree_control", f"+{name}")
    except OSError as error:
        raise _unavailable(directory, error) from error


def _node_parent(own: str, controller: str) -> str:
    """What stands before the kubelet's `kubepods` in the agent's own path of a hierarchy; empty outside a pod."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            before, found, _ = path.partition("/kubepods")
            return before.strip("/") if found else ""
    return ""


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise _unavailable(file, error) from error


def _unavailable(path: Path, error: OSError) -> EnforcementFailed:
    text = f"{path}: {error.strerror}; check that the agent runs privileged and has the host's /sys writable"
    return EnforcementFailed("CgroupUnavailable", text)
