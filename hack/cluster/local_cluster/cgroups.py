"""The cgroups of a cluster: one subtree per machine, in whichever hierarchies this kernel has mounted.

Every process of a machine is below `/<cluster>/<machine>`, so `down` finds even those it has no record of. A
machine's subtree is the root of its cgroup namespace: inside, paths look as on any computer (`/kubepods`). Its own
daemons live in `system`, because on version 2 a cgroup with controllers for children may hold no process itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_cluster.processes import POLL_SECONDS, Process

SYSTEM = "system"
MOUNTS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup file system: where, which version, and the options that mount the same one again."""

    path: Path
    version: int
    options: str


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The cgroup mounts in the text of /proc/self/mountinfo (proc(5)), in mount order, each once."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        path = Path(before.split()[4])
        if kind in {"cgroup", "cgroup2"} and path.is_relative_to(MOUNTS):
            kept = [option for option in options.split(",") if option not in {"rw", "ro"}]
            kept = ["none", *kept] if kind == "cgroup" and kept[0].startswith("name=") else kept
            version = 1 if kind == "cgroup" else 2
            found[str(path)] = Hierarchy(path, version, ",".join(kept) if version == 1 else "")
    return list(found.values())


def mounted() -> list[Hierarchy]:
    """The hierarchies of this process's mount namespace."""
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def create(hierarchy: Hierarchy, relative: str) -> Path:
    """Makes `relative` below a hierarchy's root, each level ready to take processes; answers its path."""
    here = hierarchy.path
    for part in Path(relative).parts:
        if hierarchy.version == 2 and part != SYSTEM:
            _delegate(here)
        parent, here = here, here / part
        here.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            file = here / setting
            if hierarchy.version == 1 and file.exists() and not file.read_text().strip():
                file.write_text((parent / setting).read_text())
    return here


def _delegate(cgroup: Path) -> None:
    """Version 2: lets the children of a cgroup use all its controllers."""
    offered = set((cgroup / "cgroup.controllers").read_text().split())
    enabled = set((cgroup / "cgroup.subtree_control").read_text().split())
    for controller in sorted(offered - enabled):
        (cgroup / "cgroup.subtree_control").write_text(f"+{controller}")


def enable_children(relative: str) -> None:
    """Version 2: lets children of an existing cgroup use its controllers, once its processes moved to `system`."""
    for hierarchy in mounted():
        if hierarchy.version == 2:
            _delegate(hierarchy.path / relative)


def join(relative: str, pid: int) -> None:
    """Moves a process into `relative` of every hierarchy."""
    for hierarchy in mounted():
        (create(hierarchy, relative) / "cgroup.procs").write_text(str(pid))


def members(relative: str) -> list[Process]:
    """Every process below `relative`, of any hierarchy."""
    found: set[Process] = set()
    for cgroup in _tree(relative):
        for pid in _read_pids(cgroup):
            try:
                found.add(Process.of(pid))
            except ProcessLookupError:
                continue
    return sorted(found, key=lambda process: process.pid)


def remove(relative: str, seconds: float) -> list[Path]:
    """Removes `relative` and all below it from every hierarchy; answers what the kernel still holds."""
    deadline = time.monotonic() + seconds
    while True:
        remaining = []
        for cgroup in sorted(_tree(relative), key=lambda path: len(path.parts), reverse=True):
            try:
                cgroup.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # EBUSY: the last process has not been reaped yet
                remaining.append(cgroup)
        if not remaining or time.monotonic() > deadline:
            return remaining
        time.sleep(POLL_SECONDS)


def _tree(relative: str) -> Iterator[Path]:
    for hierarchy in mounted():
        # os.walk and not rglob: cgroups vanish while they are looked at
        for folder, _, _ in os.walk(hierarchy.path / relative):
            yield Path(folder)


def _read_pids(cgroup: Path) -> list[int]:
    try:
        return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []
