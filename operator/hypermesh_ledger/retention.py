"""Which blocks CometBFT may forget: the state holds all that they did.

CometBFT keeps header and commit of a pruned block while the block could still be evidence, and never looks at it again.
So a block may only go when it is older than evidence both in blocks and in time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hypermesh_ledger.home import EVIDENCE_BLOCKS, EVIDENCE_S
from hypermesh_ledger.snapshots import RESERVE_BYTES, Snapshots

BLOCKS: Final = 2 * EVIDENCE_BLOCKS
MILLISECONDS: Final = 2 * EVIDENCE_S * 1_000


class Retention:
    """Heights and times of the newest blocks. Begins empty at every start: pruning then pauses for MILLISECONDS."""

    def __init__(self, blocks: int = BLOCKS, milliseconds: int = MILLISECONDS) -> None:
        self._blocks = blocks
        self._milliseconds = milliseconds
        self._young: deque[tuple[int, int]] = deque()
        self._height = 0

    def after(self, height: int, time_ms: int) -> int:
        """The lowest height to keep after this block (its time is never below its predecessor's); 0 keeps all."""
        self._young.append((height, time_ms))
        while self._young[0][0] < height - self._blocks and self._young[0][1] < time_ms - self._milliseconds:
            self._height, _ = self._young.popleft()
        return self._height


class WithPeers(Retention):
    """Of a ledger with peers: also all blocks since the older of its snapshots, for who restores that.

    Unless the volume is nearly full: no newer snapshot could be written then, and the blocks would stop the chain.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        super().__init__()
        self._snapshots = snapshots

    def after(self, height: int, time_ms: int) -> int:
        """See Retention; with room, keeps all while there is no snapshot."""
        lowest, kept = super().after(height, time_ms), self._snapshots.heights()
        if self._snapshots.free_bytes() < RESERVE_BYTES:
            return lowest
        return min(lowest, kept[0]) if kept else 0
