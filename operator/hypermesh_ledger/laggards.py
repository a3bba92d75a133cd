"""A lone proposer lets who joins catch up: it leaves gaps between blocks.

    Peer(height) of a ledger that is behind -> until HOLD_S later -> every other block empty, at once -> CometBFT's gap

CometBFT holds its lock while the application makes a block, also while that waits for the first operation, and tells
nobody the votes of older blocks meanwhile (`pickVoteToSend`). So who is two blocks behind the only validator gets one
of them for each new one, and stays behind for ever. After a block that changed nothing CometBFT waits GAP_S without the
lock (`create_empty_blocks_interval`), long enough for several. Only a ledger without peers of its own is set so: among
several validators blocks wait at one of them, and the others tell; and one that still is the only validator and has
peers waits a second at most.

Anybody can say that he is behind, so what it can make of empty blocks is bounded: MOST at once, then one a second.
"""

from __future__ import annotations

from typing import Final

HOLD_S: Final = 6.0
"""Twice what passes between two calls of a ledger that is behind."""
GAP_S: Final = 0.1
MOST: Final = 600
NEAR: Final = 300
"""Blocks; who is further behind gets them by CometBFT's blocksync, which needs no lock."""


class Laggards:
    """Of one ledger. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._until_s = self._counted_s = 0.0
        self._left = float(MOST)
        self._gap_next = False

    def told(self, height: int, own: int, now_s: float) -> None:
        """A ledger says how far it is; 0 when that is far enough for it."""
        if 0 < height < own - 1 and height >= own - NEAR:
            self._until_s = now_s + HOLD_S

    def holds(self, now_s: float) -> bool:
        """Whether the next block is made at once, for somebody who is behind; counts as that block."""
        if now_s >= self._until_s:
            return False
        self._left = min(MOST, self._left + now_s - self._counted_s)
        self._counted_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def gap(self) -> bool:
        """Whether it is left empty: every other one, since only what changes nothing is followed by CometBFT's gap."""
        self._gap_next = not self._gap_next
        return self._gap_next
