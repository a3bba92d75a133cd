"""Pages of the database that this process has mapped are given back, so that it is no larger than what it uses.

The kernel maps sixteen pages for each one that is read (fault-around), so that reading a large state here and there
makes all of it resident: memory that was never asked for, that looks like a leak, and that limits are set by. Given
back, a page stays in the kernel's cache and is mapped again, without the disk, when it is read again (madvise(2),
MADV_DONTNEED of a shared mapping of a file). LMDB writes through the file and never through its mapping.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 64 << 20
"""Resident pages of files, of libraries too, from which on those of the database are given back."""
_DONTNEED: Final = 4
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def resident() -> int:
    """Bytes of files that this process has mapped and resident (proc_pid_statm(5), field `shared`)."""
    return int(Path("/proc/self/statm").read_bytes().split()[2]) * _PAGE


def trim(file: Path, most: int = MOST_BYTES) -> bool:
    """Give back this file's pages when more than `most` bytes are resident; whether that was done."""
    if resident() <= most:
        return False
    return all(_libc.madvise(start, end - start, _DONTNEED) == 0 for start, end in _mappings(file))


def _mappings(file: Path) -> list[tuple[int, int]]:
    """First address and the one behind the last (proc_pid_maps(5))."""
    name, found = str(file.resolve()), []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == name:
            start, _, end = fields[0].partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found
