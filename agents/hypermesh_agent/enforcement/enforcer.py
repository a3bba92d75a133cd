"""One place that makes every kind of grant real, and takes away what no grant asks for any more.

grants of the ledger -> ensure (idempotent) -> Region, or None for what holds without bytes
leftovers of allocations that ended while nobody looked -> clean, at every start
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from hypermesh.v1 import ledger_pb2
from hypermesh_agent.enforcement import cgroups, mounts
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MakeRoom, MemoryRegions, Region, StorageRegions, no_room_made

_log = logging.getLogger(__name__)


class Enforcer:
    """Make it with `open`; calls for one grant must not overlap, those for different grants may."""

    def __init__(self, memory: MemoryRegions, storage: StorageRegions | None, cpu: cgroups.Controller) -> None:
        self.memory = memory
        self.storage = storage
        self._cpu = cpu

    @classmethod
    def open(
        cls,
        state: Path,
        pool: Path | None,
        cgroup_root: Path,
        populator: Populator,
        make_room: MakeRoom = no_room_made,
    ) -> Enforcer:
        """Regions under `state`/memory (a tmpfs, mounted if need be) and `pool`/regions. Raises EnforcementFailed."""
        memory, storage = state / "memory", pool / "regions" if pool else None
        mounts.ensure_tmpfs(memory)
        try:
            if storage is not None:
                storage.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = Path("/proc/self/cgroup").read_text()
            mounted, swaps = Path("/proc/self/mountinfo").read_text(), Path("/proc/swaps").read_text()
        except OSError as error:
            raise EnforcementFailed("PoolUnavailable", f"{error.filename}: {error.strerror}") from error
        groups = cgroups.find(cgroup_root, own)
        regions = StorageRegions(storage) if storage else None
        may_wait = mounts.may_swap(memory, mounted, swaps)
        given = MemoryRegions(memory, groups.memory, populator, may_wait=may_wait, make_room=make_room)
        return cls(given, regions, groups.cpu)

    async def ensure(self, grant: Grant) -> Region | None:
        """Makes the grant real, or finds that it is. A GPU is held by the ledger alone. Raises EnforcementFailed."""
        match grant.type:
            case ledger_pb2.ASSET_TYPE_MEMORY:
                return await self.memory.ensure(grant)
            case ledger_pb2.ASSET_TYPE_STORAGE:
                if self.storage is None:
                    raise EnforcementFailed("PoolUnavailable", "this node has no storage pool: set HYPERMESH_POOL")
                return await self.storage.ensure(grant)
            case ledger_pb2.ASSET_TYPE_CPU:
                self._cpu.make_cpu(grant.name, grant.amount)
        return None

    async def remove(self, grant: Grant) -> None:
        """Takes away what `ensure` made; the tenant's bytes are gone after it."""
        match grant.type:
            case ledger_pb2.ASSET_TYPE_MEMORY:
                await self.memory.remove(grant.name)
            case ledger_pb2.ASSET_TYPE_STORAGE if self.storage is not None:
                await self.storage.remove(grant.name)
            case ledger_pb2.ASSET_TYPE_CPU:
                self._cpu.remove(grant.name)

    def clean(self, keep: Iterable[str]) -> int:
        """Removes everything that belongs to none of `keep` (names of grants); returns how many things went."""
        kept = set(keep)
        removed = self.memory.clean(kept) + (self.storage.clean(kept) if self.storage else [])
        for name in self._cpu.names():
            if name not in kept and self._cpu.remove(name):
                removed.append(name)
        if removed:
            _log.info("removed %d leftovers of ended allocations", len(removed))
        return len(removed)
