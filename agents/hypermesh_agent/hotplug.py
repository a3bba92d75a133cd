"""Hot-plug: the kernel says that hardware came, went or changed, and the survey is run for that kind.

Two sources at once: the kernel's own events, which arrive in every container and network namespace of the machine and
without udevd; and udevd's, which come a moment later with its database filled (serials, world-wide names). Events are
gathered for a moment, because one disk with partitions speaks ten times.
Source: libudev(3), kobject uevents (Documentation/ABI/testing/sysfs-uevent), netlink(7) for lost messages.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from .hardware import Kind

_log = logging.getLogger(__name__)

QUIET_S: Final = 0.15
"""Events closer together than this belong together."""
PATIENCE_S: Final = 0.6
"""A machine that never falls silent is surveyed after this long all the same."""
BUFFER_BYTES: Final = 1 << 20

KINDS: Final[dict[str, frozenset[Kind]]] = {
    "block": frozenset({Kind.STORAGE}),
    "cpu": frozenset({Kind.CPU}),
    "memory": frozenset({Kind.MEMORY}),
    "node": frozenset({Kind.CPU, Kind.MEMORY}),
    "pci": frozenset({Kind.GPU}),
    "drm": frozenset({Kind.GPU}),
}
"""Subsystem of an event -> kinds of hardware it may be about."""


class HotPlug:
    """`async with HotPlug() as plug: async for kinds in plug: …` — sets of kinds to survey again."""

    def __init__(self) -> None:
        self._pending: set[Kind] = set()
        self._event = asyncio.Event()
        self._monitors: list[Any] = []

    async def __aenter__(self) -> HotPlug:
        import pyudev  # libudev is loaded where it is used

        context = pyudev.Context()
        loop = asyncio.get_running_loop()
        for source in ("kernel", "udev"):
            monitor = pyudev.Monitor.from_netlink(context, source)
            for subsystem in KINDS:
                monitor.filter_by(subsystem)
            monitor.set_receive_buffer_size(BUFFER_BYTES)
            monitor.start()
            loop.add_reader(monitor.fileno(), self._read, monitor)
            self._monitors.append(monitor)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for monitor in self._monitors:
            loop.remove_reader(monitor.fileno())
        self._monitors.clear()

    async def __aiter__(self) -> AsyncIterator[frozenset[Kind]]:
        while True:
            await self._event.wait()
            await self._settle()
            self._event.clear()
            kinds, self._pending = frozenset(self._pending), set()
            yield kinds

    async def _settle(self) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < deadline:
            self._event.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._event.wait()
            except TimeoutError:
                return

    def _read(self, monitor: Any) -> None:
        """All events that wait in one monitor's socket."""
        while True:
            try:
                device = monitor.poll(timeout=0)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    _log.warning("hot-plug events were lost; all hardware is surveyed again")
                    self._note(frozenset(Kind))
                    continue
                if error.errno in (errno.EAGAIN, errno.EINTR):
                    return
                raise
            if device is None:
                return
            self._note(KINDS.get(device.subsystem or "", frozenset()))

    def _note(self, kinds: frozenset[Kind]) -> None:
        if kinds:
            self._pending |= kinds
            self._event.set()
