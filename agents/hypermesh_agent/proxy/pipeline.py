"""Many allocations at once: each is prepared by itself, all that are ready are programmed in one transaction.

mark(id) -> task an id (never two for one id) -> ready -> apply + read back -> outcome
what fails is tried again, ever more seldom; what ended is taken down the same way
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from prometheus_client import Counter

from hypermesh.refusals import Reason
from hypermesh_agent.proxy.allocations import Failed, Keeper, Prepared, Replaced, now_ms, signed_address
from hypermesh_agent.proxy.mappings import Key
from hypermesh_agent.proxy.outcomes import Observed, Outcome, programmed
from hypermesh_agent.proxy.programming import Programmer, ProgrammingFailed

_log = logging.getLogger(__name__)

_GATHER_S: Final = 0.01
_GATHER_AT_MOST_S: Final = 0.05
"""How long a ready mapping waits for others of the same burst while they are being prepared."""
_RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)

OUTCOMES: Final = Counter("hypermesh_agent_mapping_outcomes_total", "What became of mappings", ["reason"])

Report = Callable[[bytes, Outcome], None]


class Pipeline:
    """`take_over` once, then `run`; `mark` an allocation id (32 bytes) whenever its record may have changed."""

    def __init__(self, keeper: Keeper, programmer: Programmer, report: Report, node_name: str) -> None:
        self._keeper = keeper
        self._programmer = programmer
        self._report = report
        self._node_name = node_name
        self._dirty: set[bytes] = set()
        self._busy: set[bytes] = set()
        self._wake = asyncio.Event()
        self._ready: dict[bytes, Prepared] = {}
        self._remove: set[Key] = set()
        self._to_program = asyncio.Event()
        self._programmed: dict[bytes, Prepared] = {}
        self._attempts: dict[bytes, int] = {}

    def mark(self, allocation_id: bytes) -> None:
        """Look at this allocation's record."""
        self._dirty.add(allocation_id)
        self._wake.set()

    def mark_failed(self) -> None:
        """Look again at all that failed: something they may have lacked has come."""
        for allocation_id in self._attempts:
            self.mark(allocation_id)

    async def take_over(self) -> None:
        """Keeps those mappings of an earlier run that verify; every known record is marked: what ended meanwhile must
        be told, too. Raises ProgrammingFailed."""
        standing = await self._programmer.present()
        candidates = {}
        for record in self._keeper.records():
            self.mark(record.allocation_id)
            active = self._keeper.active(record.allocation_id)
            taken = self._keeper.take_over(active, standing) if active is not None else None
            if taken is not None:
                key, target = taken
                candidates[key] = target
        await self._programmer.start(candidates)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._program(), name="programming")
            while True:
                await self._wake.wait()
                self._wake.clear()
                for allocation_id in self._dirty - self._busy:
                    self._dirty.discard(allocation_id)
                    self._busy.add(allocation_id)
                    group.create_task(self._work(allocation_id))

    async def _work(self, allocation_id: bytes) -> None:
        try:
            record = self._keeper.active(allocation_id)
            if record is None:
                await self._end(allocation_id)
                return
            result = await self._keeper.prepare(record)
            if isinstance(result, Failed):
                self._unprogram(allocation_id, self._keeper.suspend(allocation_id))
                self._failed(allocation_id, result.outcome)
            elif isinstance(result, Replaced):
                self._unprogram(allocation_id, result.key)
                self.mark(allocation_id)
            elif self._programmed.get(allocation_id) is not result:
                self._ready[allocation_id] = result
                self._to_program.set()
        except Exception:  # noqa: BLE001 - one allocation's trouble must not take the others' addresses down
            _log.exception("allocation %s could not be worked on", allocation_id.hex())
            self._later(allocation_id)
        finally:
            self._busy.discard(allocation_id)
            if self._dirty:
                self._wake.set()

    def _unprogram(self, allocation_id: bytes, key: Key | None) -> None:
        self._ready.pop(allocation_id, None)
        self._programmed.pop(allocation_id, None)
        if key is not None:
            self._remove.add(key)
            self._to_program.set()

    async def _end(self, allocation_id: bytes) -> None:
        self._unprogram(allocation_id, None)  # not to be programmed while its region goes
        self._unprogram(allocation_id, (await self._keeper.end(allocation_id)).key)
        self._attempts.pop(allocation_id, None)
        if (record := self._keeper.known(allocation_id)) is not None:
            address, port = signed_address(record)
            text = f"the allocation of {IPv6Address(address)} has ended; its bytes are gone"
            self._report(allocation_id, Outcome(address, port, Reason.AllocationEnded, text))

    async def _program(self) -> None:
        while True:
            await self._to_program.wait()
            for _ in range(int(_GATHER_AT_MOST_S / _GATHER_S)):
                await asyncio.sleep(_GATHER_S)
                if not self._busy:
                    break
            self._to_program.clear()
            ready, self._ready = self._ready, {}
            remove, self._remove = self._remove, set()
            wanted = {prepared.key: prepared.target for prepared in ready.values()}
            try:
                done = await self._programmer.apply(wanted, remove)
            except ProgrammingFailed as error:
                _log.error("%d mappings could not be programmed: %s", len(ready), error)
                self._remove |= remove - wanted.keys()
                for allocation_id, prepared in ready.items():
                    self._failed(allocation_id, _unprogrammed(prepared, "ProgrammingFailed", str(error)))
                asyncio.get_running_loop().call_later(_RETRY_S[0], self._to_program.set)
                continue
            self._conclude(ready, done)

    def _conclude(self, ready: dict[bytes, Prepared], done: set[Key]) -> None:
        moment = now_ms()
        for allocation_id, prepared in ready.items():
            if allocation_id not in self._keeper.prepared:
                continue  # ended meanwhile
            if prepared.key not in done:
                text = "the kernel does not show the mapping that was just written; it is written again"
                self._failed(allocation_id, _unprogrammed(prepared, "NotReadBack", text))
                continue
            self._programmed[allocation_id] = prepared
            self._attempts.pop(allocation_id, None)
            target = prepared.target
            observed = Observed(target.address, target.port, target.expires_ms, moment)
            key, type_ = prepared.key, prepared.grant.type
            self._tell(allocation_id, programmed(key.address, key.port, type_, observed, self._node_name))

    def _failed(self, allocation_id: bytes, outcome: Outcome) -> None:
        self._tell(allocation_id, outcome)
        self._later(allocation_id)

    def _tell(self, allocation_id: bytes, outcome: Outcome) -> None:
        OUTCOMES.labels(outcome.reason).inc()
        self._report(allocation_id, outcome)

    def _later(self, allocation_id: bytes) -> None:
        attempt = self._attempts.get(allocation_id, 0)
        self._attempts[allocation_id] = attempt + 1
        delay = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
        asyncio.get_running_loop().call_later(delay, self.mark, allocation_id)


def _unprogrammed(prepared: Prepared, reason: str, text: str) -> Outcome:
    return Outcome(prepared.key.address, prepared.key.port, reason, text)
