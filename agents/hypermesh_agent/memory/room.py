"""How much memory the machine can spare: what is available beyond a floor, and whether processes wait for memory.

    /proc/meminfo, limits of the groups above ours, /proc/pressure/memory -> Room -> fill, or give back

The floor lies above the 100 MiB at which the kubelet begins to evict pods, so filled memory goes before any pod does.
Sources: proc_meminfo(5); kernel documentation accounting/psi.rst, admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypermesh_agent.enforcement.cgroups import Controller

FLOOR_BYTES: Final = 256 << 20
FLOOR_SHARE: Final = 20
"""A twentieth of the machine, where that is more."""
STALLED_PERCENT: Final = 5.0
"""Of the last ten seconds, in which all that wanted to run waited for memory."""


@dataclass(frozen=True, slots=True)
class Room:
    """spare: bytes that may go before the floor is reached, below 0 when it is passed. floor: bytes. stalled: whether
    processes wait for memory."""

    spare: int
    floor: int
    stalled: bool

    def short(self) -> int:
        """Bytes to be given back now, if any are filled."""
        return max(0, -self.spare, 1 if self.stalled else 0)

    def takes(self, size: int) -> bool:
        """Whether so much may be filled, half a floor being left: what was filled isn't to be given back soon."""
        return not self.stalled and self.spare - size >= self.floor // 2


def look(groups: Controller, proc: Path = Path("/proc")) -> Room:
    """The machine's room now, and that of the groups around ours."""
    info = _fields(proc / "meminfo")
    floor = max(FLOOR_BYTES, info["MemTotal"] * 1024 // FLOOR_SHARE)
    rooms = [info["MemAvailable"] * 1024, *limited(groups)]
    return Room(min(rooms) - floor, floor, stalled(proc / "pressure" / "memory") >= STALLED_PERCENT)


def limited(groups: Controller) -> list[int]:
    """What each limited group above ours has left; file pages count as free, for the kernel drops them first."""
    left = []
    for directory in (groups.directory, *groups.directory.parents):
        limit, usage = _limit_and_usage(directory, groups.version)
        if limit is not None:
            statistics = _fields(directory / "memory.stat")
            prefix = "total_" if groups.version == 1 else ""
            files = sum(statistics.get(f"{prefix}{state}_file", 0) for state in ("active", "inactive"))
            left.append(limit - usage + files)
    return left


def stalled(pressure: Path) -> float:
    """Percent of the last ten seconds that everything waited; 0 where the kernel keeps no such account."""
    try:
        lines = pressure.read_text().splitlines()
    except OSError:
        return 0.0
    full = next((line for line in lines if line.startswith("full ")), "full avg10=0")
    return float(full.split()[1].removeprefix("avg10="))


_UNLIMITED: Final = 1 << 60


def _limit_and_usage(directory: Path, version: int) -> tuple[int | None, int]:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    try:
        limit, usage = ((directory / name).read_text().strip() for name in names)
    except OSError:
        return None, 0  # the root of the hierarchy, or above it
    return (None, 0) if limit == "max" or int(limit) >= _UNLIMITED else (int(limit), int(usage))


def _fields(file: Path) -> dict[str, int]:
    """`name: 12 kB` and `name 12` alike."""
    pairs = (line.replace(":", " ").split() for line in file.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdecimal()}
