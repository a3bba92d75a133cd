"""One class of the pool: a lane for each sender, and an order that gives every lane the same bytes of a block.

Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). An entry's place is fixed when it is admitted:

    start = max(clock, end of the lane's last entry)      end = start + size
    order = (start, sequence)                             clock = smallest start that waits

So a proposal, which may not be agreed on, only reads. A lane that was empty begins at the clock: of every other lane at
most one entry goes before its first, however many wait there. Nothing depends on the order in which entries leave
(blocks of other proposers), because the clock follows those that stay.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hypermesh.operations import Decoded
from hypermesh_ledger.pool.priority import Class

TX_OVERHEAD: Final = 8
"""Bytes that a block adds to a transaction, at most (field tag and length)."""
REMEMBERED: Final = 10_000
"""Ends of lanes that are empty now, at most; a sender that is forgotten gains one entry's size at most."""

LaneId = tuple[bytes, Class]
"""Signer, and the class that its entries were admitted to: what was lifted never queues before what is urgent."""


@dataclass(slots=True)
class Entry:
    """An admitted transaction. admitted: how many blocks the pool had seen; start: its place in its class."""

    tx_hash: bytes
    tx: bytes
    signer: bytes
    kind_class: Class
    valid_until_ms: int
    admitted: int
    sequence: int
    current: Class
    start: int = 0
    decoded: Decoded | None = None
    """Kept of small ones, so that a block need not decode them again."""
    size: int = field(init=False)
    """Bytes in a block."""
    lane: LaneId = field(init=False)
    """Where it waits within its class."""

    def __post_init__(self) -> None:
        self.size = len(self.tx) + TX_OVERHEAD
        self.lane = self.signer, self.kind_class


class Lane:
    """One sender's entries of one class, oldest first."""

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.bytes = 0

    @property
    def oldest(self) -> Entry:
        """The next to be served; a lane is never empty when asked."""
        return next(iter(self.entries.values()))

    def newest_first(self) -> Iterator[Entry]:
        """The order in which they give way."""
        return reversed(self.entries.values())


class Lanes:
    """The lanes of one class. Lanes exist while they hold something."""

    def __init__(self) -> None:
        self.lanes: dict[LaneId, Lane] = {}
        self._ends: dict[LaneId, int] = {}
        self._clock = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, entry: Entry) -> None:
        """At the end of its lane."""
        name, size = entry.lane, entry.size
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane()
        entry.start = max(self._clock, self._ends.get(name, 0))
        self._ends[name] = entry.start + size
        lane.entries[entry.tx_hash] = entry
        lane.bytes += size
        self._count += 1

    def remove(self, entry: Entry, served: bool) -> None:
        """Out of this class. What was not served gives its place back when it was its lane's last."""
        lane = self.lanes[entry.lane]
        if not served and next(lane.newest_first()) is entry:
            self._ends[entry.lane] = entry.start
        del lane.entries[entry.tx_hash]
        self._count -= 1
        lane.bytes -= entry.size
        if not lane.entries:
            del self.lanes[entry.lane]

    def heads(self) -> list[Entry]:
        """The oldest of each lane."""
        return [lane.oldest for lane in self.lanes.values()]

    def advance(self) -> None:
        """After entries have left: move the clock to the first that waits, forget what no longer matters."""
        if not self.lanes:
            self._clock = 0
            self._ends.clear()
            return
        first = min(entry.start for entry in self.heads())
        self._clock = max(self._clock, first)
        ahead = {lane: end for lane, end in self._ends.items() if end > self._clock}
        if len(ahead) > REMEMBERED + len(self.lanes):
            ahead = {lane: end for lane, end in ahead.items() if lane in self.lanes}
        self._ends = ahead

    def fill(self, room: int, time_ms: int) -> Iterator[Entry]:
        """What goes into so many bytes of a block of that time, in order; takes nothing out.

        What is no longer valid is left out. A lane whose next entry does not fit any more waits for the next block.
        """
        heads: list[tuple[int, int, Entry, Iterator[Entry]]] = []
        for lane in self.lanes.values():
            rest = iter(lane.entries.values())
            entry = next(rest)
            heads.append((entry.start, entry.sequence, entry, rest))
        heapq.heapify(heads)
        while heads:
            _, _, entry, rest = heads[0]
            if entry.valid_until_ms >= time_ms:
                if entry.size > room:
                    heapq.heappop(heads)
                    continue
                room -= entry.size
                yield entry
            following = next(rest, None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following.start, following.sequence, following, rest))
