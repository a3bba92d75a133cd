"""Who signs: what this process has seen of each validator's votes in the newest blocks, for people and metrics.

    FinalizeBlock -> decided_last_commit (round, votes) -> Presence -> Inspect, metrics

Begins empty at every start and is nobody's agreement: absence that takes a seat away is counted in the state
(execution/validators). A vote that is missing here is no fault yet: a block goes on with the first two thirds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hypermesh.v1 import ledger_pb2

WINDOW: Final = 100
"""Blocks."""


@dataclass(frozen=True, slots=True)
class Attendant:
    """A validator of one block. address: 20 bytes."""

    address: bytes
    power: int
    signed: bool


class Presence:
    """Votes and rounds of the newest WINDOW blocks that were decided while this process ran."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[Attendant, ...]] = deque()
        self._counted: Counter[bytes] = Counter()
        self._signed: Counter[bytes] = Counter()
        self.round = 0

    def note(self, decided_round: int, attendants: Sequence[Attendant]) -> None:
        """What a block says of the one before; the chain's first says nothing."""
        self.round = decided_round
        if attendants:
            self._blocks.append(tuple(attendants))
            self._count(attendants, 1)
        if len(self._blocks) > WINDOW:
            self._count(self._blocks.popleft(), -1)

    def _count(self, attendants: Sequence[Attendant], times: int) -> None:
        for each in attendants:
            self._counted[each.address] += times
            self._signed[each.address] += each.signed * times
            if not self._counted[each.address]:
                del self._counted[each.address], self._signed[each.address]

    def standings(self) -> list[ledger_pb2.Standing]:
        """Of everybody who could sign the newest of them, in CometBFT's order."""
        newest = self._blocks[-1] if self._blocks else ()
        return [
            ledger_pb2.Standing(
                address=each.address,
                power=each.power,
                signed_blocks=self._signed[each.address],
                counted_blocks=self._counted[each.address],
                signed_last=each.signed,
            )
            for each in newest
        ]
