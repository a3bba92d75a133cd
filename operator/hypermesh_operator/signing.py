"""Signatures off the event loop, and many under one when many wait.

    operations with tickets -> queue -> one thread: Merkle root, one Falcon signature -> an envelope each

FALCON-1024 in its constant-time implementation takes ten milliseconds of a processor: on the event loop it would stop
every watch for as long. What arrives while one signature is being made shares the next.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from hypermesh import operations
from hypermesh.falcon import KeyPair, key_id
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_operator import manifests

AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Keys:
    """The operator's own keys: Falcon for operations, and the key that tenants' tokens are made from."""

    keypair: KeyPair
    token_key: bytes = field(repr=False)

    @property
    def key_id(self) -> bytes:
        """How the ledger knows it."""
        return key_id(self.keypair.public)

    def token(self, allocation_id: bytes) -> str:
        """The tenant's token of one allocation."""
        return manifests.token(self.token_key, allocation_id)


@dataclass(frozen=True, slots=True)
class _Asked:
    operation: ledger_pb2.Operation
    tickets: proofs_pb2.TicketRefs
    answer: asyncio.Future[bytes]


class Signer:
    """`sign` from anywhere on the loop while `run` runs."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._asked: list[_Asked] = []
        self._some = asyncio.Event()

    async def sign(self, operation: ledger_pb2.Operation, tickets: proofs_pb2.TicketRefs) -> bytes:
        """The envelope's bytes. Raises Refused when nobody would ever accept the operation."""
        asked = _Asked(operation, tickets, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        self._some.set()
        return await asked.answer

    async def run(self) -> None:
        """Signs for ever."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "signing") as thread:
            while True:
                if not self._asked:
                    self._some.clear()
                    await self._some.wait()
                batch, self._asked = self._asked[:AT_ONCE], self._asked[AT_ONCE:]
                batch = [asked for asked in batch if not asked.answer.done()]  # its asker was cancelled
                if not batch:
                    continue
                for asked, answer in await loop.run_in_executor(thread, self._answers, batch):
                    if asked.answer.done():
                        continue
                    if isinstance(answer, bytes):
                        asked.answer.set_result(answer)
                    else:
                        asked.answer.set_exception(answer)

    def _answers(self, batch: list[_Asked]) -> list[tuple[_Asked, bytes | Exception]]:
        """Envelopes; where the batch cannot be signed as a whole, each by itself: one bad one spoils no other."""
        try:
            return list(zip(batch, self._sign(batch), strict=True))
        except Exception as error:  # noqa: BLE001 - its asker gets it
            if len(batch) == 1:
                return [(batch[0], error)]
        return [answer for asked in batch for answer in self._answers([asked])]

    def _sign(self, batch: list[_Asked]) -> list[bytes]:
        keypair = self.keys.keypair
        return operations.build_batch(
            [(asked.operation, asked.tickets) for asked in batch], keypair.public, keypair.secret
        )
