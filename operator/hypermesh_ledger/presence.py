"""Who signs: what this process has seen of each validator's votes in the newest blocks, for people and metrics.

    FinalizeBlock -> decided_last_commit (round, votes) -> Presence -> Inspect, metrics

Begins empty at every start and is nobody's agreement: absence that takes a seat away is counted in the state
(execution/validators). A vote that is missing here is no fault yet: a block goes on with the first two thirds.
"""

from __future__ import annotations

from collections import deque
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
        self._blocks: deque[tuple[Attendant, ...]] = deque(maxlen=WINDOW)
        self.round = 0

    def note(self, decided_round: int, attendants: Sequence[Attendant]) -> None:
        """What a block says of the one before; the chain's first says nothing."""
        self.round = decided_round
        if attendants:
            self._blocks.append(tuple(attendants))

    def standings(self) -> list[ledger_pb2.Standing]:
        """Of everybody who could sign the newest of them, in CometBFT's order."""
        if not self._blocks:
            return []
        signed: dict[bytes, int] = {}
        counted: dict[bytes, int] = {}
        for block in self._blocks:
            for each in block:
                counted[each.address] = counted.get(each.address, 0) + 1
                signed[each.address] = signed.get(each.address, 0) + each.signed
        return [
            ledger_pb2.Standing(
                address=each.address,
                power=each.power,
                signed_blocks=signed[each.address],
                counted_blocks=counted[each.address],
                signed_last=each.signed,
            )
            for each in self._blocks[-1]
        ]
