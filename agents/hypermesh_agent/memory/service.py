"""The memory proof of a node, assembled: off unless the chain asks for it and the owner says how much.

    holder process <- Slabs <- Filler (fills, gives back) , MemoryProver (once an epoch)
    sizes.offered  -> what the registrar may register

Anything that goes wrong with the holder ends all of it; its memory is free then, and it begins anew after a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from hypermesh.proofs.challenges import memory_owner
from hypermesh_agent.directory import AssetDirectory, NodeAsset
from hypermesh_agent.enforcement.cgroups import FILLED, Controller
from hypermesh_agent.enforcement.grants import EnforcementFailed
from hypermesh_agent.hardware import Kind
from hypermesh_agent.memory import room
from hypermesh_agent.memory.filling import TICK_S, Filler
from hypermesh_agent.memory.proving import MemoryProver
from hypermesh_agent.memory.sizes import Share, fresh, offered, shares
from hypermesh_agent.memory.slabs import Filling, HolderFailed, Slabs
from hypermesh_agent.reserves import Reserve
from hypermesh_agent.submitting import Submitter
from hypermesh_clients.mirror import Mirror

_log = logging.getLogger(__name__)

PAUSE_S: Final = 5.0


class _AskedOtherwise(Exception):
    """The ledger began another chain: other keys, perhaps other parameters, perhaps none."""


class FreeMemory:
    """`run` until cancelled. size: what the owner gives of the node's memories. groups: finds the memory controller."""

    def __init__(
        self,
        mirror: Mirror,
        submitter: Submitter,
        directory: AssetDirectory,
        node: bytes,
        size: Reserve,
        groups: Callable[[], Controller],
    ) -> None:
        self._mirror = mirror
        self._submitter = submitter
        self._directory = directory
        self._node = node
        self._size = size
        self._groups = groups
        self._slabs: Slabs | None = None
        self._filler: Filler | None = None
        self._limit = 0
        self._failure: str | None = None

    # -- what others ask -------------------------------------------------------------------------------------

    def problem(self) -> str | None:
        """A readiness check: why memory can't be filled; None also when it need not be."""
        return self._failure

    def offer(self, asset: NodeAsset) -> NodeAsset | None:
        """The asset as it can be registered now; None when it waits for its first memory ticket."""
        filling = self._asked()
        if filling is None or asset.hardware.kind is not Kind.MEMORY:
            return asset
        share = self._shares().get(asset.asset_id)
        if share is None:
            return asset
        record, memory = (
            self._mirror.assets.get(asset.asset_id),
            self._mirror.memories.get((self._node, asset.asset_id)),
        )
        epoch, grace = self._mirror.epoch.number, self._mirror.parameters.grace_epochs
        return offered(share, filling.params, record, memory, epoch, grace)

    async def make_room(self, amount: int) -> None:
        """Called before a tenant's memory of `amount` bytes is taken; returns when enough is given back."""
        if self._filler is not None:
            await self._filler.make_room(amount)

    def filled(self) -> float:
        """Bytes."""
        return 0.0 if self._slabs is None else float(self._slabs.bytes_held())

    def wanted(self) -> float:
        """Bytes that are to be filled."""
        if self._filler is None or self._slabs is None:
            return 0.0
        return float(sum(self._filler.wanted().values()) * self._slabs.filling.params.slab_bytes)

    def shown(self) -> float:
        """Bytes that valid tickets show, less what was granted since."""
        epoch, grace = self._mirror.epoch.number, self._mirror.parameters.grace_epochs
        held = [memory for (node, _), memory in self._mirror.memories.items() if node == self._node]
        valid = [memory for memory in held if fresh(memory, epoch, grace)]
        return float(sum(max(0, memory.ticket.shown - memory.grants.spent) for memory in valid))

    def given_back(self) -> float:
        """Bytes that were given back because the machine ran short, since the holder began."""
        return 0.0 if self._filler is None else float(self._filler.given_back)

    # -- its life --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Waits for the ledger; then fills and shows, for ever."""
        await self._mirror.synced.wait()
        if self._asked() is None:
            _log.info("this chain asks for no proof of memory: none is filled")
        while True:
            try:
                filling = await self._wanted()
                await self._live(filling)
            except* _AskedOtherwise:
                _log.info("the ledger began another chain: its filled memory begins anew")
            except* (HolderFailed, EnforcementFailed, OSError) as errors:
                self._failure = "; ".join(dict.fromkeys(str(error) for error in _leaves(errors)))
                _log.error("free memory is not filled: %s", self._failure)
            await asyncio.sleep(PAUSE_S)

    async def _wanted(self) -> Filling:
        """As soon as the chain asks, and there is a slab to fill."""
        while True:
            filling = self._asked()
            if filling is not None:
                if any(share.slabs for share in self._shares().values()):
                    return filling
                slab = filling.params.slab_bytes >> 20
                self._failure = f"less than one slab of {slab} MiB is given of this node's memory: raise --memory-proof"
            await asyncio.sleep(TICK_S)

    async def _live(self, filling: Filling) -> None:
        groups = self._groups()
        self._resize(groups)
        async with Slabs(filling, lambda: groups.join_file(FILLED)) as slabs:
            with ExitStack() as stack:
                filler = Filler(slabs, self._mirror, self._shares, lambda: room.look(groups))
                prover = MemoryProver(slabs, filler, self._mirror, self._submitter, self._node, self._shares)
                self._slabs, self._filler, self._failure = slabs, filler, None
                stack.callback(self._rest)
                async with asyncio.TaskGroup() as group:
                    group.create_task(filler.fill(), name="fill")
                    group.create_task(filler.watch(), name="room")
                    group.create_task(prover.run(), name="memory proofs")
                    group.create_task(self._follow(filling, groups), name="chain")

    def _rest(self) -> None:
        self._slabs = self._filler = None
        self._limit = 0

    async def _follow(self, filling: Filling, groups: Controller) -> None:
        while True:
            if self._asked() != filling:
                raise _AskedOtherwise
            self._resize(groups)
            await asyncio.sleep(TICK_S)

    def _resize(self, groups: Controller) -> None:
        """The group's limit, when the shares have changed."""
        limit = sum(share.slabs * share.size for share in self._shares().values())
        if limit != self._limit:
            groups.make_filled(limit)
            self._limit = limit

    def _asked(self) -> Filling | None:
        """What the chain asks for now, None when it asks for nothing."""
        parameters = self._mirror.parameters
        if not parameters.HasField("memory"):
            return None
        return Filling(memory_owner(self._mirror.chain_id, self._node), parameters.memory)

    def _shares(self) -> dict[bytes, Share]:
        return shares(self._directory, self._size, self._mirror.parameters.memory)


def memory_groups(root: Path) -> Controller:
    """The node's memory controller. Raises EnforcementFailed or OSError."""
    from hypermesh_agent.enforcement import cgroups

    return cgroups.find(root, Path("/proc/self/cgroup").read_text()).memory


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
