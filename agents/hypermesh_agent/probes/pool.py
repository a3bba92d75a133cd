"""The storage pool: the directory whose file system holds what this node gives away of its disks.

What can be given is what the file system still has for unprivileged writers plus what our regions hold already, less
the owner's reserve. Other files on the same disk change that all the time, so the figure is rounded down to a step:
the ledger is told of a step, not of every byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..reserves import NOTHING, Reserve

LEAST_STEP: Final = 64 << 20
STEPS: Final = 512
"""The step is a power of two near 1/512 of the file system, at least 64 MiB."""


@dataclass(frozen=True, slots=True)
class Pool:
    """device: `major:minor` of the file system (major 0: none behind it that the kernel numbers). Sizes in bytes."""

    path: str
    device: str
    size: int
    available: int
    used_by_regions: int

    def capacity(self, reserve: Reserve = NOTHING) -> int:
        """Bytes to give in all, regions included, in whole steps."""
        step = self.step()
        room = self.available + self.used_by_regions - reserve.of(self.size)
        return max(0, min(room, self.size)) // step * step

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
