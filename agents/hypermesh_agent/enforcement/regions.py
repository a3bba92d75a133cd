"""Byte ranges that tenants read and write: memory as tmpfs files, storage as allocated files in the pool.

Both live as `<allocation id>` in a directory that only root may enter, and come into being by a rename when they are
whole, so a name that is there is a region that is ready. Pages of a fresh tmpfs file and extents of a fresh
allocation read as zeros, whoever had them before. What a removed storage region held stays on the medium until the
file system writes there again, but is never shown to another tenant.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant, is_name
from hypermesh_agent.enforcement.populator import Populator, full_or_failed

_PART: Final = ".part"

MakeRoom = Callable[[int], Awaitable[None]]
"""Called with the bytes that are about to be taken; returns when whatever can make room for them has."""


async def no_room_made(_: int) -> None:
    """Of a node that fills no free memory."""


class Region(Protocol):
    """`size` bytes behind an address. Offsets and lengths were checked by the caller."""

    size: int

    async def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, or OSError."""

    async def write(self, offset: int, data: bytes) -> None:
        """All of it, or OSError."""


class FileRegion:
    """A file's bytes. `may_wait` for what may lie on a disk: then each call runs in a worker thread.

    Memory is read with pread(2) too, not mapped here: mapped pages would count as the agent's own resident memory, and
    an error would be a signal instead of an OSError.
    """

    def __init__(self, path: Path, size: int, *, may_wait: bool) -> None:
        self.size = size
        self._may_wait = may_wait
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self._descriptor)

    async def read(self, offset: int, length: int) -> bytes:
        if self._may_wait:
            data = await asyncio.to_thread(os.pread, self._descriptor, length, offset)
        else:
            data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise OSError(errno.EIO, f"{len(data)} of {length} bytes could be read at {offset}")
        return data

    async def write(self, offset: int, data: bytes) -> None:
        if self._may_wait:
            written = await asyncio.to_thread(os.pwrite, self._descriptor, data, offset)
        else:
            written = os.pwrite(self._descriptor, data, offset)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes could be written at {offset}")


class Regions:
    """The regions in one directory; subclasses say how one is made and opened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> set[str]:
        """Whole regions that are there."""
        return {path.name for path in self.directory.iterdir() if is_name(path.name)}

    def clean(self, keep: Iterable[str]) -> list[str]:
        """Removes half-made regions and those not in `keep`; returns what it removed."""
        kept = set(keep)
        found = (path.name for path in self.directory.iterdir() if is_name(path.name.removesuffix(_PART)))
        removed = [name for name in found if name.endswith(_PART) or name not in kept]
        for name in removed:
            (self.directory / name).unlink(missing_ok=True)
        return removed

    def _ready(self, grant: Grant) -> bool:
        """Whether the region is there, all of it. A wrong size can only be damage: it is made anew."""
        path = self.directory / grant.name
        try:
            state = path.lstat()
        except FileNotFoundError:
            return False
        if state.st_size == grant.amount and state.st_blocks * 512 >= grant.amount:
            return True
        path.unlink()
        return False


class MemoryRegions(Regions):
    """tmpfs files whose pages are charged to the allocation's own memory group."""

    def __init__(
        self,
        directory: Path,
        groups: Controller,
        populator: Populator,
        *,
        may_wait: bool = False,
        make_room: MakeRoom = no_room_made,
    ) -> None:
        """may_wait: whether pages may be swapped, and reads thus wait for a disk."""
        super().__init__(directory)
        self._make_room = make_room
        self._may_wait = may_wait
        self._groups = groups
        self._populator = populator
        self._coming = 0

    async def ensure(self, grant: Grant) -> FileRegion:
        """The region, made if it is not there; its charge is read back when it is made. Raises EnforcementFailed."""
        if not self._ready(grant):
            await self._make(grant)
        return FileRegion(self.directory / grant.name, grant.amount, may_wait=self._may_wait)

    async def remove(self, name: str) -> None:
        """Gives the pages back, then the group."""
        (self.directory / name).unlink(missing_ok=True)
        self._groups.remove(name)

    def clean(self, keep: Iterable[str]) -> list[str]:
        kept = set(keep)
        removed = super().clean(kept)
        for name in self._groups.names():
            if name not in kept:
                self._groups.remove(name)
        return removed

    def charged(self, name: str) -> int:
        """Bytes that the kernel counts for a region."""
        return self._groups.memory_usage(name)

    async def _make(self, grant: Grant) -> None:
        await self._make_room(grant.amount + self._coming)
        free = available_memory() - self._coming
        if grant.amount > free:
            text = f"{grant.amount} bytes of memory are granted but only {max(0, free)} are available on this node"
            raise EnforcementFailed("OutOfMemory", f"{text}: stop other programs or raise the node's reserved memory")
        part = self.directory / (grant.name + _PART)
        self._coming += grant.amount
        try:
            part.unlink(missing_ok=True)
            self._groups.make_memory(grant.name, grant.amount)
            await self._populator.populate(part, grant.amount, [self._groups.join_file(grant.name)])
            charged = self.charged(grant.name)
            if charged < grant.amount:
                text = f"the kernel charges {charged} of {grant.amount} bytes to {self._groups.directory / grant.name}"
                raise EnforcementFailed("ChargeWrong", f"{text}: check that the memory controller is on")
            part.rename(self.directory / grant.name)
        except BaseException as error:
            part.unlink(missing_ok=True)
            self._groups.remove(grant.name)
            if isinstance(error, EnforcementFailed) and error.reason == "PoolFull":
                text = f"the tmpfs {self.directory} is full: release Allocations or mount it larger"
                raise EnforcementFailed("OutOfMemory", text) from error
            raise
        finally:
            self._coming -= grant.amount


class StorageRegions(Regions):
    """Files in the pool directory whose blocks are allocated when the region is made."""

    async def ensure(self, grant: Grant) -> FileRegion:
        """The region, made if it is not there. Raises EnforcementFailed."""
        if not self._ready(grant):
            await asyncio.to_thread(self._make, grant)
        return FileRegion(self.directory / grant.name, grant.amount, may_wait=True)

    async def remove(self, name: str) -> None:
        """Gives the blocks back; freeing many takes a while, so in a thread."""
        await asyncio.to_thread((self.directory / name).unlink, missing_ok=True)

    def _make(self, grant: Grant) -> None:
        part = self.directory / (grant.name + _PART)
        part.unlink(missing_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, grant.amount)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.rename(self.directory / grant.name)
            _sync(self.directory)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise full_or_failed(part, grant.amount, error) from error


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """MemAvailable in bytes (proc(5); every Linux since 3.14 says it)."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise EnforcementFailed("MemoryUnavailable", f"{meminfo} has no MemAvailable; use a Linux kernel of 3.14 or newer")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
