"""The storage pool: the directory whose file system holds what this node gives away of its disks.

What can be given is what the file system still has for unprivileged writers plus what our regions hold already, less
the owner's reserve. Other files on the same disk change that all the time, so the figure moves in steps, and late: the
ledger is told of a trend, not of every byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..reserves import NOTHING, Reserve

LEAST_STEP: Final = 64 << 20
STEPS: Final = 256
"""The step is a power of two near 1/256 of the file system, at least 64 MiB."""


@dataclass(frozen=True, slots=True)
class Pool:
    """device: `major:minor` of the file system (major 0: none behind it that the kernel numbers). Sizes in bytes."""

    path: str
    device: str
    size: int
    available: int
    used_by_regions: int

    def capacity(self, reserve: Reserve = NOTHING, held: int = 0) -> int:
        """Bytes to give in all, regions included, in whole steps.

        held: the figure given so far. It stays while the room is within a step below it or two above, so that the
        writes of others on the same disk do not move it back and forth; the reserve covers the step.
        """
        step = self.step()
        room = max(0, min(self.available + self.used_by_regions - reserve.of(self.size), self.size))
        if held and held - step <= room < held + 2 * step:
            return held
        return room // step * step

    def step(self) -> int:
        return max(LEAST_STEP, 1 << max(0, (self.size // STEPS).bit_length() - 1))


def read(path: Path) -> Pool | None:
    """The pool as its file system shows it now; None when the directory does not exist. Raises OSError otherwise."""
    try:
        device = path.stat().st_dev
        space = os.statvfs(path)
    except FileNotFoundError:
        return None
    return Pool(
        path=os.fspath(path),
        device=f"{os.major(device)}:{os.minor(device)}",
        size=space.f_blocks * space.f_frsize,
        available=space.f_bavail * space.f_frsize,
        used_by_regions=_used(path, device),
    )


def _used(path: Path, device: int) -> int:
    """Bytes that files below `path` hold on its file system (512-byte blocks of stat(2): sparse files count true)."""
    total = 0
    pending = [os.fspath(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if status.st_dev != device:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += status.st_blocks * 512
        except FileNotFoundError:
            continue  # a region released while we look
    return total
