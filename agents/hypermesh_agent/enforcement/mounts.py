"""The tmpfs that holds memory regions: mounted once on the node, outlives every agent process."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from hypermesh_agent.enforcement.grants import EnforcementFailed

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_OPTIONS: Final = ("mode=0700,size=100%,noswap", "mode=0700,size=100%")
"""noswap since Linux 6.4; the older kernel's second best is a region that may be swapped."""


def is_tmpfs(path: Path, mountinfo: str) -> bool:
    """Whether a tmpfs is mounted exactly at `path`; mountinfo is the text of /proc/self/mountinfo (proc(5))."""
    return _tmpfs_options(path, mountinfo) is not None


def may_swap(path: Path, mountinfo: str, swaps: str) -> bool:
    """Whether pages of the tmpfs at `path` can come to lie on a disk; swaps is the text of /proc/swaps (proc(5))."""
    options = _tmpfs_options(path, mountinfo) or []
    return "noswap" not in options and len(swaps.splitlines()) > 1


def _tmpfs_options(path: Path, mountinfo: str) -> list[str] | None:
    """Of the newest tmpfs at `path`, which hides older ones; None when there is none."""
    for line in reversed(mountinfo.splitlines()):
        left, _, right = line.partition(" - ")
        if left.split()[4] == str(path) and right.split()[0] == "tmpfs":
            return right.split()[-1].split(",")
    return None


def ensure_tmpfs(path: Path) -> None:
    """Mounts a tmpfs at `path` unless one is there; seen by the host when `path` is a shared mount. Raises
    EnforcementFailed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_tmpfs(path, Path("/proc/self/mountinfo").read_text()):
        return
    for options in _OPTIONS:
        failure = _mount("tmpfs", path, options)
        if failure == 0:
            return
        if failure != errno.EINVAL:
            break
    raise EnforcementFailed(
        "MemoryUnavailable", f"tmpfs at {path}: {os.strerror(failure)}; the agent must run privileged to mount it"
    )


def unmount(path: Path) -> None:
    """Takes the tmpfs away with everything in it; to uninstall. Raises OSError, not when it was not there."""
    if is_tmpfs(path, Path("/proc/self/mountinfo").read_text()):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(path), 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def _mount(kind: str, path: Path, options: str) -> int:
    """mount(2); 0 or an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    done = libc.mount(b"hypermesh", os.fsencode(path), kind.encode(), flags, options.encode())
    return ctypes.get_errno() if done else 0
