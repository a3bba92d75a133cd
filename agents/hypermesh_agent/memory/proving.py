"""Shows filled memory once an epoch, before the deadline.

    epoch on the ledger -> challenge -> answer (holder) -> CommitMemory -> MemoryRecord.seed -> open -> ProveMemory

Nothing is submitted for an epoch that is already answered, or that began before anything was filled and is too old.
What fails costs one epoch: the ticket of the one before stays valid for some (grace).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from hypermesh.proofs.challenges import challenge
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.directory import NodeAsset
from hypermesh_agent.memory.filling import Filler
from hypermesh_agent.memory.sizes import Share
from hypermesh_agent.memory.slabs import SlabGone, Slabs
from hypermesh_agent.submitting import Submitter
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror

_log = logging.getLogger(__name__)

PATIENCE: Final = 4
"""Of a deadline, this part may pass until what is being filled is whole."""
LOOK_S: Final = 0.2
SEED_S: Final = 15.0
TRIES: Final = 3


class MemoryProver:
    """`run` for ever; one epoch after the other, all memories of the node side by side."""

    def __init__(
        self,
        slabs: Slabs,
        filler: Filler,
        mirror: Mirror,
        submitter: Submitter,
        node: bytes,
        shares: Callable[[], dict[bytes, Share]],
    ) -> None:
        self._slabs = slabs
        self._filler = filler
        self._mirror = mirror
        self._submitter = submitter
        self._node = node
        self._shares = shares

    async def run(self) -> None:
        """Raises HolderFailed."""
        done = 0
        while True:
            number = await self._begun(done)
            memories = [share.asset for share in self._shares().values() if self._slabs.whole(share.asset.asset_id)]
            async with asyncio.TaskGroup() as group:
                for asset in memories:
                    group.create_task(self._prove(asset, number))
            done = number

    async def _begun(self, done: int) -> int:
        """The number of an epoch after `done`, once there is something to show; all of it, if that takes not long."""
        seen, since = 0, time.monotonic()
        patience = self._slabs.filling.params.deadline_ms / 1000 / PATIENCE
        while True:
            number = self._mirror.epoch.number
            if number <= done:
                await self._later(lambda: self._mirror.epoch.number > done)
                continue
            if number != seen:
                seen, since = number, time.monotonic()
            something = any(self._slabs.whole(asset) for asset in self._slabs.assets())
            if something and (self._filler.complete() or time.monotonic() - since >= patience):
                return number
            await asyncio.sleep(LOOK_S)

    async def _prove(self, asset: NodeAsset, number: int) -> None:
        began = time.monotonic()
        try:
            ticket = await self._won(asset, number)
        except SlabGone:
            _log.info("%s: its filled memory went to others while epoch %d was answered", asset.name, number)
        except Refused as refusal:
            text = "%s: its free memory is not shown in epoch %d: %s %s"
            _log.warning(text, asset.name, number, refusal.message, refusal.reason.remedy)
        except (LedgerUnavailable, TimeoutError) as error:
            text = "%s: its free memory is not shown in epoch %d: %s"
            _log.warning(text, asset.name, number, str(error) or "the ledger did not answer in time")
        else:
            seconds, mib = time.monotonic() - began, ticket.shown >> 20
            _log.info("%s: %d MiB of free memory are shown in epoch %d, after %.1f s", asset.name, mib, number, seconds)

    async def _won(self, asset: NodeAsset, number: int) -> ledger_pb2.MemoryTicket:
        """Commits, opens, and returns the ticket."""
        c = challenge(self._mirror.chain_id, self._mirror.epoch.beacon, self._node, number)
        if self._mirror.epoch.number != number:
            raise TimeoutError(f"epoch {number} is over")
        commitment = await self._answered(asset.asset_id, c)
        hardware = asset.hardware.hardware_id
        committing = ledger_pb2.CommitMemory(epoch=number, commitment=commitment, hardware_id=hardware)
        await self._submitter.submit(ledger_pb2.Operation(commit_memory=committing))
        await self._mirror.wait_until(lambda: self._drawn(asset.asset_id, number), SEED_S)
        held = self._mirror.memories[self._node, asset.asset_id]
        if held.late:
            raise Refused(Reason.MemoryLate, "the commitment came after the deadline.")
        proof = await self._slabs.open(commitment, c, held.seed)
        proving = ledger_pb2.ProveMemory(epoch=number, proof=proof)
        try:
            await self._submitter.submit(ledger_pb2.Operation(prove_memory=proving))
        except Refused as refusal:
            if refusal.reason is not Reason.AlreadyProven:
                raise
        await self._mirror.wait_until(
            lambda: self._mirror.memories[self._node, asset.asset_id].ticket.epoch >= number, SEED_S
        )
        return self._mirror.memories[self._node, asset.asset_id].ticket

    async def _answered(self, asset: bytes, c: bytes) -> proofs_pb2.MemoryCommitment:
        """Of what is whole now; when some of it is cut off meanwhile, of the rest."""
        for _ in range(TRIES - 1):
            try:
                return await self._slabs.answer(asset, c)
            except SlabGone:
                continue
        return await self._slabs.answer(asset, c)

    def _drawn(self, asset: bytes, number: int) -> bool:
        held = self._mirror.memories.get((self._node, asset))
        return held is not None and held.epoch == number and (held.late or bool(held.seed))

    async def _later(self, predicate: Callable[[], bool]) -> None:
        try:
            await self._mirror.wait_until(predicate, 60)
        except TimeoutError:
            return  # long epochs; the mirror's age is watched elsewhere
