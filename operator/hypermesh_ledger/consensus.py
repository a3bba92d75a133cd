"""What CometBFT is doing now: height, round and step that it works on, and how many peers it has.

Asked over its RPC's unix socket every LOOK_S, and once more when a person asks. Its own Prometheus endpoint stays off:
one process, one port for metrics; and what it alone can tell are these four numbers. While the chain stands they tell
why: a round that rises is a proposer or a third of the votes missing; a height that nothing works on is a dead engine.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypermesh_ledger import rpc
from hypermesh_ledger.errors import CometbftSilent

LOOK_S: Final = 5.0
FRESH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Working:
    """All 0 while CometBFT does not answer."""

    height: int = 0
    round: int = 0
    step: int = 0
    peers: int = 0


class Consensus:
    """The newest look."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._looked = 0.0
        self._turn = asyncio.Lock()
        self.now = Working()

    async def look(self) -> Working:
        """A look that is at most FRESH_S old."""
        async with self._turn:
            if time.monotonic() - self._looked > FRESH_S:
                try:
                    self.now = Working(*await rpc.working(self._socket))
                except CometbftSilent:
                    self.now = Working()
                self._looked = time.monotonic()
        return self.now

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)
