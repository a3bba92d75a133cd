"""The survey: runs the probes on this machine and keeps what each kind of hardware last showed.

Thin I/O around the pure probes: udev's enumeration, the pool's file system, the GPU reader's process. A probe that
fails costs its own kind only: the Assets it found last time stay, and the failure is told in words. A kind that has
nothing (no GPU) says why once, not every round.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hypermesh.digests import digest

from .hardware import Hardware, Inventory, Kind, ProbeFailed, Unreadable
from .probes import cgroups, cpu, gpu, memory, mounts, pool, storage
from .readings import Tree
from .reserves import NOTHING, Reserve

_log = logging.getLogger(__name__)

EVERY_KIND: Final = frozenset(Kind)
GPU_READER_S: Final = 30.0
"""A driver under load answers in a second; one that takes this long hangs."""

Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class SurveyConfig:
    """What the owner keeps back, and where the pool is (None: give no storage)."""

    reserved_cpu: Reserve = NOTHING
    reserved_memory: Reserve = NOTHING
    reserved_storage: Reserve = NOTHING
    pool: Path | None = None


class Survey:
    """Call `run` with the kinds that may have changed; it answers with the whole inventory."""

    def __init__(
        self,
        config: SurveyConfig,
        tree: Tree | None = None,
        devices: Callable[[], Devices] | None = None,
    ) -> None:
        self._config = config
        self._tree = tree or Tree()
        self._devices = devices or udev_block_devices
        self._found: dict[Kind, tuple[Hardware, ...]] = dict.fromkeys(Kind, ())
        self._failures: dict[Kind, str] = {}
        self._looked: set[Kind] = set()
        self._no_gpu: str | None = None
        self._machine = machine_id(self._tree)

    async def run(self, kinds: Collection[Kind] = EVERY_KIND) -> Inventory:
        """Probes `kinds` and returns everything known. Never raises for a probe's sake."""
        probes = {
            Kind.CPU: self._cpu,
            Kind.MEMORY: self._memory,
            Kind.STORAGE: self._storage,
        }
        for kind, probe in probes.items():
            if kind in kinds:
                self._take(kind, probe)
        if Kind.GPU in kinds:
            answer: str | ProbeFailed
            try:
                answer = await read_gpus()
            except ProbeFailed as error:
                answer = error
            self._take(Kind.GPU, partial(self._gpu, answer))
        hardware = tuple(item for kind in Kind for item in self._found[kind])
        unknown = frozenset(Kind) - self._looked | self._failures.keys()
        return Inventory(hardware, dict(self._failures), unknown)

    @property
    def gpus_expected(self) -> bool:
        """Whether a periodic survey should ask the GPU drivers: one answered with a GPU, or failed to answer."""
        return bool(self._found[Kind.GPU]) or Kind.GPU in self._failures

    def _take(self, kind: Kind, probe: Callable[[], tuple[Hardware, ...]]) -> None:
        try:
            self._found[kind] = probe()
        except (ProbeFailed, Unreadable, OSError, ValueError) as error:
            message = error.message if isinstance(error, ProbeFailed) else str(error)
            if self._failures.get(kind) != message:
                _log.error("%s probe failed, its Assets stay as they were: %s", kind, message)
            self._failures[kind] = message
            return
        self._looked.add(kind)
        if self._failures.pop(kind, None) is not None:
            _log.info("%s probe works again", kind)

    def _cpu(self) -> tuple[Hardware, ...]:
        return cpu.probe(self._tree, self._machine, cgroups.read(self._tree), self._config.reserved_cpu)

    def _memory(self) -> tuple[Hardware, ...]:
        return memory.probe(self._tree, self._machine, cgroups.read(self._tree), self._config.reserved_memory)

    def _storage(self) -> tuple[Hardware, ...]:
        place = pool.read(self._config.pool) if self._config.pool is not None else None
        return storage.probe(self._tree, self._devices(), mounts.read(self._tree), place, self._config.reserved_storage)

    def _gpu(self, answer: str | ProbeFailed) -> tuple[Hardware, ...]:
        if isinstance(answer, ProbeFailed):
            raise answer
        found, reason = gpu.parse(answer)
        if reason is not None and reason != self._no_gpu:
            _log.info("no GPU on this machine: %s", reason)
        self._no_gpu = reason
        return found


def machine_id(tree: Tree) -> str:
    """16 hex digits that stay with the installation: derived from machine-id(5), which itself must not be shown.

    The first process's file comes first: a container has one of its image, or none. Then the firmware's product UUID
    stands in, at last the host name.
    """
    sources = (
        "/proc/1/root/etc/machine-id",
        "/etc/machine-id",
        "/sys/class/dmi/id/product_uuid",
        "/proc/sys/kernel/hostname",
    )
    text = next((text for text in map(tree.text, sources) if text and text != "uninitialized"), "")
    return digest("machine", text.encode("utf-8", "replace")).hex()[:16]


def udev_block_devices() -> Devices:
    """Kernel name -> udev properties of every block device (of its database where udevd runs, else the kernel's)."""
    import pyudev  # only a machine's own survey needs libudev, not the parsers' tests

    found = pyudev.Context().list_devices(subsystem="block")
    return {device.sys_name: {name: str(device.properties[name]) for name in device.properties} for device in found}


async def read_gpus(limit_s: float = GPU_READER_S) -> str:
    """What the GPU reader printed. Raises ProbeFailed when it crashed or did not end in time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hypermesh_agent.probes.gpu_reader",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit_s):
            output, complaints = await process.communicate()
    except TimeoutError as error:
        message = f"the driver did not answer within {limit_s:.0f} s; check it with nvidia-smi or clinfo"
        raise ProbeFailed(Kind.GPU, message) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = complaints.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise ProbeFailed(Kind.GPU, f"the reader ended with {process.returncode}: {''.join(last)[:300]}")
    return output.decode("utf-8", "replace")
