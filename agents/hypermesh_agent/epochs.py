"""Epochs: the node wins its tickets, once each epoch and as early in it as it can.

    epoch on the ledger -> challenge -> commit_work -> CommitWork -> WorkSeed -> prove -> Prove -> tickets

Everything heavy happens in the prover's short-lived processes. An epoch that ends while it is being proven costs
nothing: its proof is still accepted in the next, else this begins again. Tickets stay valid for some epochs (grace), so
one slow round does not stop the node; `lateness` says how much of that is used up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from hypermesh.proofs.challenges import challenge
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror

from .directory import AssetDirectory
from .hardware import Kind
from .probes.gpu import OPENCL_DEVICE
from .proofs.prover import Prover, ProverFailed, WorkDevice
from .readings import cpu_list
from .submitting import Submitter

_log = logging.getLogger(__name__)

MAX_DEVICES: Final = 64
"""As many as one CommitWork may carry."""
TELL_PERCENT: Final = 20
SEED_S: Final = 15.0
PAUSE_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
SPREAD: Final = 0.1
"""Nodes begin within this part of an epoch, each at its own moment, so that they do not all submit at once."""


class Epochs:
    """Run `run()` beside the rest; `reason()` is None while the node's tickets are fresh."""

    def __init__(
        self, mirror: Mirror, submitter: Submitter, prover: Prover, directory: AssetDirectory, node: bytes, plot_k: int
    ) -> None:
        self._mirror = mirror
        self._submitter = submitter
        self._prover = prover
        self._directory = directory
        self._node = node
        self._plot_k = plot_k
        self._plotted = False
        self._problem: str | None = None
        self.seconds = 0.0
        """How long the last proven epoch took, from its challenge to its tickets."""

    async def run(self) -> None:
        """Proves every epoch for ever. Failures are told, and tried again after a growing pause."""
        failures = 0
        while True:
            try:
                if not self._plotted:
                    await self._plot()
                await self._next()
                failures, self._problem = 0, None
            except (ProverFailed, Refused, LedgerUnavailable, TimeoutError) as error:
                failures += 1
                self._plotted = self._plotted and not isinstance(error, ProverFailed)
                self._problem = str(error) or "the ledger did not answer in time"
                _log.warning("epoch %d is not proven: %s", self._mirror.epoch.number, self._problem)
                await asyncio.sleep(PAUSE_S[min(failures, len(PAUSE_S)) - 1])

    def lateness(self) -> int | None:
        """Epochs since the node's oldest needed ticket; None before the first."""
        newest = self._newest()
        return None if newest is None else max(0, self._mirror.epoch.number - newest)

    def reason(self) -> str | None:
        """Why the tickets are not fresh, or None."""
        late = self.lateness()
        if late is not None and late <= self._mirror.parameters.grace_epochs:
            return None
        state = "no tickets yet" if late is None else f"the newest tickets are {late} epochs old"
        return f"{state}: {self._problem or 'the first proof is under way'}"

    async def _plot(self) -> None:
        k = max(self._plot_k, self._mirror.parameters.space_min_k)

        told = 0

        def tell(done: float) -> None:
            nonlocal told
            if done * 100 >= told + TELL_PERCENT:
                told = int(done * 100)
                _log.info("plot of k=%d: %d %%", k, told)

        if await self._prover.ensure_plot(k, tell):
            _log.info("plot of k=%d is made", k)
        self._plotted = True

    async def _next(self) -> None:
        """Waits for an epoch without tickets of ours and proves it."""
        await self._wait_for_work()
        began = time.monotonic()
        number, beacon = self._mirror.epoch.number, self._mirror.epoch.beacon
        parameters = self._mirror.parameters
        asked = challenge(self._mirror.chain_id, beacon, self._node, number)
        devices = work_devices(self._directory)
        if not devices:
            raise ProverFailed("proof of work", "NoDevice", "no CPU is known; see the log for the probe's failure")
        await self._commit(number, asked, devices, parameters)
        seed = self._mirror.work_seeds[self._node]
        proof = await self._prover.prove(asked, number, seed, parameters, devices)
        try:
            await self._submitter.submit(ledger_pb2.Operation(prove=proof))
        except Refused as refusal:
            if refusal.reason is not Reason.AlreadyProven:
                raise
        await self._mirror.wait_until(lambda: (self._newest() or 0) >= number, SEED_S)
        self.seconds = time.monotonic() - began
        _log.info("epoch %d is proven after %.1f s", number, self.seconds)

    async def _commit(
        self, number: int, asked: bytes, devices: list[WorkDevice], parameters: proofs_pb2.ProofParameters
    ) -> None:
        """The ledger holds this epoch's commitment afterwards, ours of now or of before a restart."""
        if self._seeded(number):
            return
        commitments = await self._prover.commit_work(asked, devices, parameters)
        operation = ledger_pb2.CommitWork(epoch=number, commitments=commitments)
        try:
            await self._submitter.submit(ledger_pb2.Operation(commit_work=operation))
        except Refused as refusal:
            if refusal.reason is not Reason.AlreadyCommitted:
                raise
        await self._mirror.wait_until(lambda: self._seeded(number), SEED_S)

    async def _wait_for_work(self) -> None:
        """Until the current epoch has no tickets of ours; then this node's own moment in it, unless it is the first."""
        first = self._newest() is None
        while (newest := self._newest()) is not None and newest >= self._mirror.epoch.number:
            try:
                await self._mirror.wait_until(lambda: (self._newest() or 0) < self._mirror.epoch.number, 60)
            except TimeoutError:
                continue  # long epochs; the mirror's age is watched elsewhere
        late = self.lateness()
        if not first and late == 1:
            share = int.from_bytes(self._node[:2], "big") / 0x10000
            await asyncio.sleep(share * SPREAD * self._mirror.parameters.epoch_ms / 1000)

    def _seeded(self, number: int) -> bool:
        seed = self._mirror.work_seeds.get(self._node)
        return seed is not None and seed.epoch == number

    def _newest(self) -> int | None:
        """The epoch for which the node holds space and time tickets."""
        kinds = (proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_TIME)
        tickets = [self._mirror.tickets.get((kind, self._node)) for kind in kinds]
        numbers = [ticket.epoch for ticket in tickets if ticket is not None]
        return min(numbers) if len(numbers) == len(kinds) else None


def work_devices(directory: AssetDirectory) -> list[WorkDevice]:
    """Every CPU pool by its CPUs, every GPU as OpenCL names it (without OpenCL: on any CPU), at most 64, in order."""
    devices = []
    for asset in directory.devices()[:MAX_DEVICES]:
        if asset.hardware.kind is Kind.GPU:
            devices.append(WorkDevice(asset.asset_id, opencl=asset.hardware.attributes.get(OPENCL_DEVICE, "")))
        else:
            devices.append(WorkDevice(asset.asset_id, cpus=cpu_list(str(asset.hardware.detail["cpus"]))))
    return devices
