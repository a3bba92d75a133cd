"""How much may wait, and who gives way when there is no room. Pure: says what would have to leave, removes nothing.

A newcomer displaces the newest entries of the largest lane of the lowest class below its own; failing that, of a lane
of its own class that is larger than the newcomer's lane would be (as in McKenney's stochastic fairness queueing). So
whoever floods loses to whoever does not, and two equal senders never displace each other in turns.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hypermesh_ledger.pool.lanes import Entry, Lane
from hypermesh_ledger.pool.priority import Class


@dataclass(frozen=True, slots=True)
class Share:
    """Transactions and bytes (as in a block)."""

    txs: int
    bytes: int

    def holds(self, txs: int, size: int) -> bool:
        """Whether so much is no more than this."""
        return txs <= self.txs and size <= self.bytes


WHOLE: Final = Share(10_000, 128 << 20)
"""What may wait in all."""
OPERATORS_SHARE: Final = Share(1_024, 16 << 20)
"""Of one operator's key: it speaks for a whole cluster."""
EVERYBODYS_SHARE: Final = Share(64, 8 << 20)
"""Of any other key."""


@dataclass(slots=True)
class Use:
    """How much waits, of one key or in all."""

    txs: int = 0
    bytes: int = 0

    def change(self, entry: Entry, sign: int) -> None:
        """One entry more (1) or less (-1)."""
        self.txs += sign
        self.bytes += sign * entry.size

    def fits(self, entry: Entry, share: Share) -> bool:
        """Whether the share holds one entry more."""
        return share.holds(self.txs + 1, self.bytes + entry.size)


def displaced(
    newcomer: Entry,
    lanes: Iterable[tuple[Class, Lane]],
    own_bytes: int,
    use: Use,
    share: Share,
    gone: Sequence[Entry] = (),
) -> list[Entry] | None:
    """Which entries of these lanes leave so that the newcomer fits into the share; None when it can't be made to fit.

    lanes: with their class; own_bytes: what the newcomer's own lane holds; use: what the share holds now;
    gone: what leaves already, for another reason.
    """
    txs, size = use.txs + 1 - len(gone), use.bytes + newcomer.size - sum(entry.size for entry in gone)
    if share.holds(txs, size):
        return []
    floor = own_bytes + newcomer.size
    heap = [
        (-rank, -lane.bytes, index, lane.newest_first())
        for index, (rank, lane) in enumerate(lanes)
        if _gives_way(rank, lane.bytes, newcomer.current, floor)
    ]
    heapq.heapify(heap)
    leaving: list[Entry] = []
    already = {entry.tx_hash for entry in gone}
    for entry in _in_turn(heap, newcomer.current, floor):
        if entry.tx_hash in already:
            continue
        leaving.append(entry)
        txs, size = txs - 1, size - entry.size
        if share.holds(txs, size):
            return leaving
    return None


def _gives_way(rank: int, lane_bytes: int, newcomers: Class, floor: int) -> bool:
    return rank > newcomers or (rank == newcomers and lane_bytes > floor)


def _in_turn(heap: list[tuple[int, int, int, Iterator[Entry]]], newcomers: Class, floor: int) -> Iterator[Entry]:
    """The newest of the largest lane of the lowest class, again and again."""
    while heap:
        rank, held, index, newest = heapq.heappop(heap)
        if not _gives_way(-rank, -held, newcomers, floor):
            continue
        entry = next(newest, None)
        if entry is not None:
            yield entry
            heapq.heappush(heap, (rank, held + entry.size, index, newest))
