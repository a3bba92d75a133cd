"""The application's mempool: admitted transactions in the order in which blocks take them.

Proofs and enrolments go first (they lapse with their epoch, and others wait for them), then first come, first served.
A transaction stays until a block decides it; who submitted it waits on its future.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from hypermesh.operations import Decoded
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.execution import Result

MAX_TXS: Final = 10_000
MAX_BYTES: Final = 128 << 20
OPERATORS_SHARE: Final = 1_024
EVERYBODYS_SHARE: Final = 64
"""Transactions of one key at most, so that no key can fill the pool for all."""
TX_OVERHEAD: Final = 8
"""Bytes that a block adds to a transaction, at most (field tag and length)."""

Waiter = asyncio.Future[Result]


class Pool:
    """Transactions by their hash, with their signers. All calls on one event loop."""

    def __init__(self, gossip: bool = False) -> None:
        """gossip: keep a list of what peers have not been told yet (`reap`)."""
        self._first: dict[bytes, tuple[bytes, bytes]] = {}
        self._then: dict[bytes, tuple[bytes, bytes]] = {}
        self._signed: Counter[bytes] = Counter()
        self._bytes = 0
        self._waiters: dict[bytes, list[Waiter]] = {}
        self._untold: deque[bytes] | None = deque() if gossip else None
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._first) + len(self._then)

    def __contains__(self, tx_hash: bytes) -> bool:
        return tx_hash in self._first or tx_hash in self._then

    def add(self, decoded: Decoded, tx: bytes, share: int = EVERYBODYS_SHARE) -> None:
        """Admit a checked transaction; once more changes nothing. share: how many its signer may have here.

        Raises Refused(MempoolFull).
        """
        if decoded.tx_hash in self:
            return
        if len(self) >= MAX_TXS or self._bytes + len(tx) > MAX_BYTES:
            raise Refused(Reason.MempoolFull, f"{len(self)} transactions are waiting already.")
        signer = decoded.envelope.signer
        if self._signed[signer] >= share:
            raise Refused(Reason.MempoolFull, f"{share} transactions of key {signer.hex()[:16]} are waiting already.")
        urgent = decoded.kind in ("enrol_node", "commit_work", "prove")
        (self._first if urgent else self._then)[decoded.tx_hash] = tx, signer
        self._signed[signer] += 1
        self._bytes += len(tx)
        if self._untold is not None:
            self._untold.append(tx)
        self._filled.set()

    def wait_for(self, tx_hash: bytes) -> Waiter:
        """A future for the result of an admitted transaction."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(tx_hash, []).append(waiter)
        return waiter

    def forget(self, tx_hash: bytes, waiter: Waiter) -> None:
        """Nobody waits on this future any more."""
        waiters = self._waiters.get(tx_hash, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(tx_hash, None)

    async def take(self, max_bytes: int, patience_s: float) -> list[bytes]:
        """What a block may carry; waits up to patience_s for the first. Nothing leaves the pool by this."""
        if not len(self):
            self._filled.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._filled.wait()
            except TimeoutError:
                return []
        taken: list[bytes] = []
        for pending in (self._first, self._then):
            for tx, _ in pending.values():
                max_bytes -= len(tx) + TX_OVERHEAD
                if max_bytes < 0:
                    return taken
                taken.append(tx)
        return taken

    def reap(self, max_bytes: int) -> list[bytes]:
        """What peers have not been told yet; max_bytes 0 for no limit."""
        taken: list[bytes] = []
        size = 0
        while self._untold:
            size += len(self._untold[0]) + TX_OVERHEAD
            if max_bytes and size > max_bytes:
                break
            taken.append(self._untold.popleft())
        return taken

    def decide(self, results: Iterable[Result]) -> None:
        """A committed block's results: its transactions leave, their submitters get the answer."""
        for result in results:
            held = self._first.pop(result.tx_hash, None) or self._then.pop(result.tx_hash, None)
            if held is not None:
                tx, signer = held
                self._bytes -= len(tx)
                self._signed[signer] -= 1
                if not self._signed[signer]:
                    del self._signed[signer]
            for waiter in self._waiters.pop(result.tx_hash, []):
                if not waiter.done():
                    waiter.set_result(result)
