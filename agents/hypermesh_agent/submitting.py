"""Signs this node's operations and submits them until the ledger has decided.

An answer that never came says nothing about the commit; the same bytes are sent again, which the ledger's state makes
harmless, until they are committed, refused, or past their validity.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from hypermesh import falcon, operations
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients.ledger import Commit, LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror

VALID_MS: Final = 5 * 60 * 1000
ATTEMPTS: Final = 5
PAUSE_S: Final = 1.0


class Submitter:
    """The node's one pen: everything it says to the ledger goes through here."""

    def __init__(self, client: LedgerClient, mirror: Mirror, keypair: falcon.KeyPair) -> None:
        self._client = client
        self._mirror = mirror
        self._keypair = keypair

    async def submit(self, operation: ledger_pb2.Operation, tickets: proofs_pb2.TicketRefs | None = None) -> Commit:
        """Returns when committed. Raises Refused, or LedgerUnavailable after some attempts."""
        operation.chain_id = self._mirror.chain_id
        operation.valid_until_ms = int(time.time() * 1000) + VALID_MS
        envelope = operations.build(operation, self._keypair.public, self._keypair.secret, tickets)
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._client.submit(envelope)
            except LedgerUnavailable:
                await asyncio.sleep(PAUSE_S)
        return await self._client.submit(envelope)
