"""Keeps as much filled as the owner wants and the machine can spare, and gives it back first of all.

shares less reservations -> slabs to fill ── some blocks at a time ──▶ filled
an Allocation comes       -> make_room: given back before its region is made
the machine runs short    -> given back until it does not, and not filled again for a while
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from hypermesh_agent.memory.room import Room
from hypermesh_agent.memory.sizes import Share
from hypermesh_agent.memory.slabs import AT_ONCE, Slabs
from hypermesh_clients.mirror import Mirror

_log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""Between two looks at the machine's room."""
REST_S: Final = 30.0
"""After memory was given back because the machine ran short."""


class Filler:
    """`fill` and `watch` run side by side; `make_room` may be called by anybody."""

    def __init__(
        self, slabs: Slabs, mirror: Mirror, shares: Callable[[], Mapping[bytes, Share]], room: Callable[[], Room]
    ) -> None:
        self._slabs = slabs
        self._mirror = mirror
        self._shares = shares
        self._room = room
        self._rests_until = 0.0
        self.given_back = 0
        """Bytes that were given back because the machine ran short."""

    def wanted(self) -> dict[bytes, int]:
        """Slabs to fill, by asset id."""
        return {asset: share.to_fill(self._mirror.assets.get(asset)) for asset, share in self._shares().items()}

    def complete(self) -> bool:
        """Whether everything that is wanted is filled."""
        return all(len(self._slabs.whole(asset)) >= slabs for asset, slabs in self.wanted().items())

    async def fill(self) -> None:
        """For ever. Raises HolderFailed."""
        while True:
            wanted = self.wanted()
            asset = next((each for each, slabs in wanted.items() if len(self._slabs.whole(each)) < slabs), None)
            chunk = AT_ONCE * self._slabs.filling.params.block_kib * 1024
            if asset is None or time.monotonic() < self._rests_until or not self._room().takes(chunk):
                await asyncio.sleep(TICK_S)
            else:
                await self._slabs.fill(asset)

    async def watch(self) -> None:
        """For ever: what is too much goes, by the owner's word or the machine's need."""
        while True:
            await self._fit()
            if short := self._room().short():
                await self._give_back(short)
            await asyncio.sleep(TICK_S)

    async def make_room(self, amount: int) -> None:
        """Before `amount` bytes are taken for a tenant: what is reserved is given back, and more if need be."""
        await self._fit()
        room = self._room()
        if (short := amount - room.spare - room.floor) > 0:
            await self._give_back(short)

    async def _fit(self) -> None:
        wanted = self.wanted()
        for asset in self._slabs.assets():
            await self._slabs.cut(asset, wanted.get(asset, 0))

    async def _give_back(self, short: int) -> None:
        """At least `short` bytes, as far as there are any; the largest memory first."""
        self._rests_until = time.monotonic() + REST_S
        gone = 0
        while gone < short and (assets := self._slabs.assets()):
            asset = max(assets, key=self._slabs.count)
            gone += await self._slabs.cut(asset, self._slabs.count(asset) - 1)
        if gone:
            self.given_back += gone
            _log.warning("the machine runs short of memory: %d MiB of filled memory are given back", gone >> 20)
