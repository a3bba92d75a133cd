"""How many operations a proposer puts into a block: as many as the ledger executes and commits in AIM_S.

    block decided here -> operations and seconds it took -> seconds an operation -> most of the next proposal

Whoever submits beside a flood waits for the block under way and for its own; the pool's order sees to it that no flood
goes before it. The proposer's own choice: no validator refuses a block for its length, and nothing decided depends on
it.
"""

from __future__ import annotations

from typing import Final

AIM_S: Final = 0.1
AIM_WITH_PEERS_S: Final = 0.3
"""Instead of AIM_S among several validators: a block's rounds cost each of them time beside its operations."""
LEAST: Final = 64
"""Operations that always fit; of shorter blocks the time says little about one operation, so they count as so many."""
FIRST_S: Final = 0.000_4
"""Seconds an operation until blocks were measured."""


class Pace:
    """Of one process."""

    def __init__(self) -> None:
        self._each_s = FIRST_S

    def took(self, operations: int, seconds: float) -> None:
        """A block was executed and committed; half of what is believed comes from it."""
        if operations:
            self._each_s = (self._each_s + seconds / max(LEAST, operations)) / 2

    def most(self, validators: int = 1) -> int:
        """Operations of the next proposal, of one of so many."""
        return max(LEAST, int((AIM_S if validators <= 1 else AIM_WITH_PEERS_S) / self._each_s))
