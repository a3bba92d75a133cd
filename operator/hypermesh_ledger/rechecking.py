"""What this validator was drawn to compute again, one result at a time, and its verdicts until the state has them.

    committed block's records -> queue -> worker process -> verdicts -> next vote's extension -> a later block's state

Nothing here holds up a block: what does not fit into the queue, or fails, is skipped, and says so. After a restart
the state tells what is still owed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from hypermesh.v1 import ledger_pb2, proofs_pb2, votes_pb2
from hypermesh_ledger import keys, recomputing
from hypermesh_ledger.execution import rechecks
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.state import Reader

_log = logging.getLogger(__name__)

WAITING: Final = 256
"""Results that wait for the worker, at most."""
TOLD: Final = 64
"""Verdicts in one extension, at most: under 3 KB."""

ATTEMPTS: Final = 2

AGREE: Final = votes_pb2.RECHECK_OUTCOME_AGREE
DISAGREE: Final = votes_pb2.RECHECK_OUTCOME_DISAGREE
SKIPPED: Final = votes_pb2.RECHECK_OUTCOME_SKIPPED
Record = votes_pb2.RecheckRecord
RootOf = Callable[[bytes, bytes, proofs_pb2.ProofParameters], Awaitable[bytes]]


class Rechecks:
    """One validator's; address: the first 20 bytes of SHA-256(consensus key). All calls on one event loop."""

    def __init__(self, address: bytes, metrics: Metrics, root_of: RootOf = recomputing.root_of) -> None:
        self._address = address
        self._metrics = metrics
        self._root_of = root_of
        self._queue: asyncio.Queue[Record] = asyncio.Queue(WAITING)
        self._known: dict[bytes, votes_pb2.Verdict | None] = {}
        """By key in the state, what is owed: None while it is not computed."""
        self._params: proofs_pb2.ProofParameters | None = None

    def begin(self, state: Reader) -> None:
        """From a committed state: what an earlier run of this program did not tell any more."""
        genesis = read(state, keys.GENESIS, ledger_pb2.Genesis)
        self._params = genesis.proofs if genesis is not None else None
        self.see((keys.recheck(each.epoch, each.result), each) for each in rechecks.records(state))

    def committed(self, writes: Iterable[tuple[bytes, bytes | None]], state: Reader) -> None:
        """What a block has written."""
        if self._params is None:
            self.begin(state)
            return
        mine = [(key, value) for key, value in writes if key.startswith(keys.RECHECK)]
        self.see((key, None if value is None else Record.FromString(value)) for key, value in mine)

    def see(self, records: Iterable[tuple[bytes, Record | None]]) -> None:
        """Records as the state has them now; None: forgotten."""
        for key, record in records:
            if record is None or not rechecks.owed(record, self._address):
                self._known.pop(key, None)
            elif key not in self._known:
                self._known[key] = None
                self._take_up(key, record)

    def _take_up(self, key: bytes, record: Record) -> None:
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self._settle(key, record, SKIPPED)

    def verdicts(self) -> list[votes_pb2.Verdict]:
        """Those that are ready and not in the state, the first ones."""
        ready = (verdict for verdict in self._known.values() if verdict is not None)
        return [verdict for verdict, _ in zip(ready, range(TOLD), strict=False)]

    async def run(self) -> None:
        """For ever."""
        while True:
            record = await self._queue.get()
            key = keys.recheck(record.epoch, record.result)
            if key in self._known:  # else it was forgotten while it waited
                self._settle(key, record, await self._outcome(record))

    async def _outcome(self, record: Record) -> votes_pb2.RecheckOutcome:
        name = f"the work of device {record.device.hex()[:16]}, node {record.node.hex()[:16]}, epoch {record.epoch}"
        root = None
        for _ in range(ATTEMPTS):
            try:
                params = self._params or proofs_pb2.ProofParameters()
                root = await self._root_of(record.challenge, record.device, params)
                break
            except Exception as error:  # noqa: BLE001 - whatever fails here must not end the ledger
                _log.warning("could not compute %s again: %r", name, error)
        if root is None:
            return SKIPPED
        if root != record.root:
            _log.warning("%s is not what this validator computes: voting against its ticket", name)
            return DISAGREE
        return AGREE

    def _settle(self, key: bytes, record: Record, outcome: votes_pb2.RecheckOutcome) -> None:
        self._metrics.rechecked(outcome)
        if key in self._known:
            self._known[key] = votes_pb2.Verdict(epoch=record.epoch, result=record.result, outcome=outcome)
