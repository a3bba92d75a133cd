"""Keeps the kernel's table equal to the wanted mappings: program, read back, and repair what others changed.

    wanted (verified and enforced mappings) -> difference -> one transaction -> read back -> what really stands there

Only what was read back counts as programmed. A periodic `audit` compares the whole table when any ruleset changed
since the last one, and repairs and counts the drift. One task at a time (a lock); the kernel's work runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from ipaddress import IPv6Network
from typing import Final, TypeVar

from prometheus_client import Counter, Gauge

from hypermesh_agent.proxy.kernel import Diverged, Kernel
from hypermesh_agent.proxy.mappings import Key, Target, difference, live

_log = logging.getLogger(__name__)

R = TypeVar("R")

_ATTEMPTS: Final = 5
_FULL_AUDIT_EVERY: Final = 30
"""Audits after which the table is read even when no ruleset changed: the clock may have been set."""

DRIFT: Final = Counter(
    "hypermesh_agent_proxy_drift_repaired_total", "Mappings and tables that others changed and the agent repaired"
)
PROGRAMMED: Final = Gauge("hypermesh_agent_proxy_mappings", "Mappings in the kernel, as last read back")


class ProgrammingFailed(Exception):
    """The kernel refuses the table or changes under our hands; the message says what to look at."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Programmer:
    """`own` is the node's /88. Call `start` first; `drop` only to uninstall."""

    def __init__(self, kernel: Kernel, own: IPv6Network, now_ms: Callable[[], int] = _now_ms) -> None:
        self._kernel = kernel
        self._own = own
        self._now_ms = now_ms
        self._wanted: dict[Key, Target] = {}
        self._actual: dict[Key, Target] = {}
        self._generation = -1
        self._audits = 0
        self._lock = asyncio.Lock()

    @property
    def wanted(self) -> Mapping[Key, Target]:
        return self._wanted

    async def start(self, wanted: Mapping[Key, Target]) -> int:
        """Takes over the table of an earlier run, or makes an empty one; returns how many mappings it changed.

        Of `wanted` those stay that are there, untouched, so that connections go on; the others come by `apply` when
        they are ready. Raises ProgrammingFailed.
        """
        async with self._lock:
            present = await self._present()
            self._wanted = {key: target for key, target in wanted.items() if key in present}
            return await self._converge()

    async def present(self) -> Set[Key]:
        """What the kernel translates now, before `start` by the word of an earlier run. Raises ProgrammingFailed."""
        async with self._lock:
            return (await self._present()).keys()

    async def apply(self, add: Mapping[Key, Target], remove: Iterable[Key] = ()) -> set[Key]:
        """Makes the changes in one transaction (of at most MAX_BATCH) and returns the added keys read back right.

        Raises ProgrammingFailed.
        """
        async with self._lock:
            removed = [key for key in remove if key not in add]
            for key in removed:
                self._wanted.pop(key, None)
            self._wanted.update(add)
            touched = [*add, *removed]
            now = self._now_ms()
            change = difference(live(self._wanted, now), live(self._actual, now), touched)
            if change:
                try:
                    await self._call(self._kernel.change, change)
                except Diverged:
                    _log.warning("a mapping or the whole nftables table had gone; reading it again")
                    DRIFT.inc(max(1, await self._converge() - len(touched)))
            for key in touched:
                self._actual.pop(key, None)
            found = await self._call(self._kernel.read, list(add)) if add else {}
            self._actual.update(found)
            PROGRAMMED.set(len(self._actual))
            return {key for key, target in add.items() if key in found and found[key].same(target)}

    async def audit(self) -> int:
        """Repairs drift and returns how many mappings (a table counts as one more) were not as wanted."""
        async with self._lock:
            generation = await self._call(self._kernel.generation)
            self._audits += 1
            if generation == self._generation and self._audits % _FULL_AUDIT_EVERY:
                return 0
            repaired = await self._converge()
            if repaired:
                DRIFT.inc(repaired)
                _log.warning("repaired the nftables table: %d mappings were not as wanted", repaired)
            return repaired

    async def drop(self) -> None:
        """Removes the whole table."""
        async with self._lock:
            await self._call(self._kernel.drop)
            self._wanted, self._actual = {}, {}
            PROGRAMMED.set(0)

    async def _present(self) -> dict[Key, Target]:
        try:
            return await self._call(self._kernel.read)
        except Diverged:
            return {}

    async def _converge(self) -> int:
        """Reads everything and changes what differs, until nothing does."""
        changed = 0
        for _ in range(_ATTEMPTS):
            try:
                generation = await self._call(self._kernel.generation)
                if not await self._call(self._kernel.intact, self._own):
                    changed += 1
                    await self._call(self._kernel.rebuild, self._own, live(self._wanted, self._now_ms()))
                    continue
                self._actual = await self._call(self._kernel.read)
                change = difference(live(self._wanted, self._now_ms()), live(self._actual, self._now_ms()))
                if not change:
                    self._generation = generation
                    PROGRAMMED.set(len(self._actual))
                    return changed
                changed += len(change.add.keys() | change.remove)
                await self._call(self._kernel.change, change)
            except Diverged:
                continue
        raise ProgrammingFailed(
            "nftables table ip6 hypermesh: another program keeps changing it; find it with `nft monitor` and stop it"
        )

    async def _call(self, deed: Callable[..., R], *arguments: object) -> R:
        """In a worker thread. Raises ProgrammingFailed for what the kernel refuses, Diverged as it comes."""
        try:
            return await asyncio.to_thread(deed, *arguments)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ProgrammingFailed:
        """The next audit must look, whether or not the ruleset changes until then."""
        self._generation = -1
        return ProgrammingFailed(
            f"nftables table ip6 hypermesh: {error.strerror or error}; "
            "the agent needs CAP_NET_ADMIN and a kernel with nf_tables NAT"
        )
