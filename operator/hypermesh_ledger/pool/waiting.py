"""Pool: what waits for a block, in classes and lanes, bounded; and who waits for what became of it.

    add -> [lane of its signer in its class] -> take (a proposal; nothing leaves) -> decide (a committed block)
                 |                |
                 gives way        its validity ends: told so, with nobody's help

A transaction leaves when a block decides it, when block time passes its validity, or when it gives way to another.
Whoever submitted it is told in each case. What gave way here may still be committed: a peer or a proposal may hold it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hypermesh.operations import Decoded
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool.lanes import Entry, Lane, Lanes
from hypermesh_ledger.pool.limits import EVERYBODYS_SHARE, WHOLE, Share, Use, displaced
from hypermesh_ledger.pool.priority import LIFT_BLOCKS, Class, class_of

GAVE_WAY: Final = (
    "It gave way to another transaction: the pool is full. "
    "A peer or a proposal may hold it, so it may still be committed; submit the same bytes again."
)
SMALL_BYTES: Final = 4_096
"""Of transactions no larger the pool keeps also what they decode to, about as much again."""
LINGERING: Final = Share(256, 1 << 20)
"""How much of what waits for long is named at a time."""
_SLACK: Final = 64

Waiter = Callable[[Result], None]
Lost = Callable[[Reason, Class], None]


class Pool:
    """Transactions by their hash, with their signers. All calls on one event loop."""

    def __init__(self, gossip: bool = False, whole: Share = WHOLE) -> None:
        """gossip: keep a list of what peers have not been told yet (`untold`); whole: what may wait in all."""
        self.lost: Lost = lambda reason, rank: None
        """Called when a transaction leaves undecided, with its class: Reason.MempoolFull or Reason.Expired."""
        self.whole = whole
        self._entries: dict[bytes, Entry] = {}
        self._classes = {rank: Lanes() for rank in Class}
        self._used: dict[bytes, Use] = {}
        self._use = Use()
        self._ends: list[tuple[int, bytes]] = []
        self._blocks = 0
        self._sequence = itertools.count()
        self._waiters: dict[bytes, list[Waiter]] = {}
        self._untold: dict[Class, deque[bytes]] | None = {rank: deque() for rank in Class} if gossip else None
        self._old, self._again = 0, -1
        self._filled = asyncio.Event()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, tx_hash: bytes) -> bool:
        return tx_hash in self._entries

    def decoded(self, tx_hash: bytes) -> Decoded | None:
        """What a transaction that waits decodes to, if that is kept."""
        entry = self._entries.get(tx_hash)
        return None if entry is None else entry.decoded

    @property
    def gossips(self) -> bool:
        """Whether there are peers to tell."""
        return self._untold is not None

    @property
    def size(self) -> int:
        """What waits, in bytes of a block."""
        return self._use.bytes

    def count(self, rank: Class) -> int:
        """How many wait in this class now."""
        return len(self._classes[rank])

    # -- in --------------------------------------------------------------------------------------------------

    def add(self, decoded: Decoded, share: Share = EVERYBODYS_SHARE, heard: bool = False) -> None:
        """Admit a checked transaction; once more changes nothing. share: how much its signer may have here.

        heard: a peer has told it, which tells all others too. Raises Refused(MempoolFull).
        """
        if decoded.tx_hash in self:
            return
        rank, signer = class_of(decoded.kind), decoded.read.signer
        until, sequence = decoded.operation.valid_until_ms, next(self._sequence)
        tx = decoded.raw
        entry = Entry(decoded.tx_hash, tx, signer, rank, until, self._blocks, sequence, rank)
        entry.decoded = decoded if len(tx) <= SMALL_BYTES else None
        for other in self._giving_way(entry, share):
            self._lose(other, Reason.MempoolFull, GAVE_WAY)
        self._entries[entry.tx_hash] = entry
        self._classes[rank].add(entry)
        used = self._used.get(signer)
        if used is None:
            used = self._used[signer] = Use()
        used.change(entry, 1)
        self._use.change(entry, 1)
        heapq.heappush(self._ends, (until, entry.tx_hash))
        if len(self._ends) > 2 * len(self) + _SLACK:
            self._ends = [(each.valid_until_ms, each.tx_hash) for each in self._entries.values()]
            heapq.heapify(self._ends)
        if self._untold is not None and not heard:
            self._untold[rank].append(entry.tx_hash)
            self._news.set()
        self._filled.set()

    def _giving_way(self, entry: Entry, share: Share) -> list[Entry]:
        """Who has to leave for this one. Raises Refused(MempoolFull)."""
        used = self._used.get(entry.signer) or Use()
        if used.fits(entry, share) and self._use.fits(entry, self.whole):
            return []
        own = self._classes[entry.current].lanes.get(entry.lane)
        own_bytes = own.bytes if own else 0
        gone = displaced(entry, self._own_lower(entry), own_bytes, used, share)
        if gone is None:
            text = f"{used.txs} transactions ({used.bytes} bytes) of key {entry.signer.hex()[:16]} are waiting already."
            raise Refused(Reason.MempoolFull, text)
        leaving = displaced(entry, self._lanes(), own_bytes, self._use, self.whole, gone)
        if leaving is None:
            raise Refused(Reason.MempoolFull, f"{len(self)} transactions ({self.size} bytes) are waiting already.")
        return gone + leaving

    def _own_lower(self, entry: Entry) -> Iterator[tuple[Class, Lane]]:
        """The same signer's lanes of lower classes: a key that has used up its share may still release."""
        for rank, lanes in self._classes.items():
            lane = lanes.lanes.get((entry.signer, rank))
            if rank > entry.current and lane is not None:
                yield rank, lane

    def _lanes(self) -> Iterator[tuple[Class, Lane]]:
        return ((rank, lane) for rank, lanes in self._classes.items() for lane in lanes.lanes.values())

    # -- waiting ---------------------------------------------------------------------------------------------

    def wait_for(self, tx_hash: bytes, waiter: Waiter) -> None:
        """Call it once with the result of an admitted transaction; of height 0 when no block decided it."""
        self._waiters.setdefault(tx_hash, []).append(waiter)

    def forget(self, tx_hash: bytes, waiter: Waiter) -> None:
        """It is not to be called any more."""
        waiters = self._waiters.get(tx_hash)
        if waiters is None:
            return
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(tx_hash, None)

    def _tell(self, result: Result) -> None:
        for waiter in self._waiters.pop(result.tx_hash, ()):
            waiter(result)

    # -- out -------------------------------------------------------------------------------------------------

    async def filled(self, patience_s: float) -> bool:
        """Whether something waits; waits up to patience_s for the first."""
        if not len(self):
            self._filled.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._filled.wait()
            except TimeoutError:
                return False
        return True

    def take(self, max_bytes: int, time_ms: int, most: int | None = None) -> list[bytes]:
        """What a block of that time may carry, in order; no more than `most`. Nothing leaves the pool by this."""
        taken: list[bytes] = []
        for lanes in self._classes.values():
            left = None if most is None else most - len(taken)
            for entry in itertools.islice(lanes.fill(max_bytes, time_ms), left):
                max_bytes -= entry.size
                taken.append(entry.tx)
        return taken

    async def news(self) -> None:
        """Until there is something that peers have not been told."""
        await self._news.wait()

    def untold(self, max_bytes: int) -> list[bytes]:
        """What peers have not been told yet, the first class first; max_bytes is more than any transaction has."""
        taken: list[bytes] = []
        size = 0
        for untold in (self._untold or {}).values():
            while untold:
                entry = self._entries.get(untold[0])
                if entry is not None:
                    size += entry.size
                    if size > max_bytes:
                        return taken
                    taken.append(entry.tx)
                untold.popleft()
        self._news.clear()
        return taken

    def all(self, max_bytes: int) -> Iterator[list[bytes]]:
        """All that waits now, so much at a time; what leaves meanwhile is left out."""
        taken: list[bytes] = []
        size = 0
        for tx_hash in list(self._entries):  # not entries: a slow listener would keep all of them
            entry = self._entries.get(tx_hash)
            if entry is not None:
                size += entry.size
                if size > max_bytes:
                    yield taken
                    taken, size = [], entry.size
                taken.append(entry.tx)
        if taken:
            yield taken

    def lingering(self) -> list[bytes]:
        """Some of what has waited since the last call, all of it in turns."""
        waiting = [entry for entry in self._entries.values() if entry.sequence < self._old]
        some = [entry for entry in waiting if entry.sequence > self._again] or waiting
        taken: list[bytes] = []
        size = 0
        for entry in some[: LINGERING.txs]:
            size += entry.size
            if taken and size > LINGERING.bytes:
                break
            taken.append(entry.tx)
            self._again = entry.sequence
        self._old = next(self._sequence)
        return taken

    def decide(self, results: Iterable[Result], time_ms: int) -> None:
        """A committed block and its time: what it decided and what it outlived leaves, submitters get the answer."""
        for result in results:
            entry = self._entries.get(result.tx_hash)
            if entry is not None:
                self._remove(entry, served=True)
            self._tell(result)
        while self._ends and self._ends[0][0] < time_ms:
            _, tx_hash = heapq.heappop(self._ends)
            entry = self._entries.get(tx_hash)
            if entry is not None:
                self._lose(entry, Reason.Expired, "The operation's validity ended before a block took it.")
        self._blocks += 1
        self._lift()
        for lanes in self._classes.values():
            lanes.advance()

    def _lift(self) -> None:
        """Into the first class: what waits for too long, one of a lane at a time."""
        first = self._classes[Class.FIRST]
        for rank in list(Class)[1:]:
            for entry in self._classes[rank].heads():
                if entry.admitted <= self._blocks - LIFT_BLOCKS and entry.lane not in first.lanes:
                    self._classes[rank].remove(entry, served=True)
                    entry.current = Class.FIRST
                    first.add(entry)

    def _lose(self, entry: Entry, reason: Reason, text: str) -> None:
        self._remove(entry, served=False)
        self.lost(reason, entry.current)
        self._tell(Result(entry.tx_hash, 0, reason, text))

    def _remove(self, entry: Entry, served: bool) -> None:
        del self._entries[entry.tx_hash]
        self._classes[entry.current].remove(entry, served)
        self._use.change(entry, -1)
        used = self._used[entry.signer]
        used.change(entry, -1)
        if not used.txs:
            del self._used[entry.signer]
