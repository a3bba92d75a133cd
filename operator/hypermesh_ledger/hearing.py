"""What other ledgers tell this one: operations that wait there, heard from each peer by a stream of its own.

    peer's Pending -> some at once, decoded, verified and judged together -> pool
                      those that wait for a proof, a few at a time        -> admit, each by itself -> pool

The next message of a peer is taken when the last one is through, so a peer that tells much waits itself, and delays
others by one turn at most. What has waited here for long is submitted to a peer, as any client would: so it comes also
to ledgers that do not listen to this one, be it that they do not know it or can't reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from hypermesh.operations import Decoded
from hypermesh.refusals import Refused
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_ledger.admission import Admission
from hypermesh_ledger.pool import Pool

_log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""Until a peer that does not answer is asked again."""
AT_ONCE: Final = 64
"""Heard together, at most."""
PROOFS: Final = 64
"""Of one peer that wait for a proof; then no more of its operations are taken."""
LINGER_S: Final = 3.0
"""How long an operation waits before a peer is asked to take it."""


class Hearing:
    """Of one ledger. All calls on one event loop."""

    def __init__(
        self, admission: Admission, pool: Pool, peers: Sequence[LedgerClient], ready: Callable[[], bool]
    ) -> None:
        """ready: whether there is a state that operations can be judged by; until then nobody is listened to."""
        self._admission = admission
        self._ready = ready
        self._pool = pool
        self._peers = peers

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for peer in self._peers:
                tasks.create_task(self._listen(peer))
            tasks.create_task(self._pass_on())

    async def _listen(self, peer: LedgerClient) -> None:
        async with asyncio.TaskGroup() as proofs:
            few = asyncio.Semaphore(PROOFS)
            while True:
                while not self._ready():  # noqa: ASYNC110 - blocks' doing
                    await asyncio.sleep(AGAIN_S)
                with contextlib.suppress(LedgerUnavailable):
                    async with aclosing(peer.pending()) as told:
                        async for txs in told:
                            await self._hear(txs, proofs, few)
                await asyncio.sleep(AGAIN_S)

    async def _hear(self, txs: Sequence[bytes], proofs: asyncio.TaskGroup, few: asyncio.Semaphore) -> None:
        for first in range(0, len(txs), AT_ONCE):
            some = txs[first : first + AT_ONCE]
            try:
                later = await self._admission.hear(some)
            except Exception:  # noqa: BLE001 - a defect must not leave the others waiting
                _log.exception("%d transactions of a peer could not be checked", len(some))
                continue
            for decoded in later:
                await few.acquire()
                proofs.create_task(self._prove(decoded, few))

    async def _prove(self, decoded: Decoded, few: asyncio.Semaphore) -> None:
        try:
            await self._admission.admit(decoded.raw, decoded.tx_hash, decoded, heard=True)
        except Refused as refusal:
            _log.info("peer's transaction refused: %s", refusal)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a transaction of a peer could not be checked")
        finally:
            few.release()

    async def _pass_on(self) -> None:
        some: list[bytes] = []
        refused = 0
        for peer in itertools.cycle(self._peers):
            await asyncio.sleep(LINGER_S)
            if not refused:
                some = self._pool.lingering()
            taken = not some or await self._taken(peer, some)
            refused = 0 if taken else (refused + 1) % len(self._peers)  # to the next one, until all were asked

    async def _taken(self, peer: LedgerClient, txs: Sequence[bytes]) -> bool:
        try:
            async with aclosing(peer.submit_many(txs, LINGER_S)) as told:
                async for _ in told:
                    pass  # its block tells, here too
        except LedgerUnavailable:
            return False
        except Exception:  # noqa: BLE001 - what one peer answers must not end this
            _log.exception("%d transactions could not be submitted to a peer", len(txs))
            return False
        return True
