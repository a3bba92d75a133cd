"""The agent's handle on its provers: async calls, each one worker process, bounded in time and number.

Order within an epoch: `commit_work` → CommitWork on the ledger → its WorkSeed → `prove` → Prove. The plot is made
once by `ensure_plot`. Errors: ProverFailed, whose message names the task and what to do.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.proofs.plots import plot_bytes

Progress = Callable[[float], None]

_PROGRESS = re.compile(rb"Progress update: ([01](?:\.\d+)?)")
_KEPT_LINES = 10
# Plotting writes about 3 MB/s on a slow machine; no plot takes longer than this bound.
_PLOT_SECONDS_AT_LEAST = 300
_PLOT_BYTES_A_SECOND = 500_000
_REPLY_LIMIT = 4 << 20


class ProverFailed(RuntimeError):
    """A proving task gave no answer. `kind` is the error's type in the worker, or Crashed or TimedOut."""

    def __init__(self, task: str, kind: str, message: str) -> None:
        super().__init__(f"{task}: {message}")
        self.task = task
        self.kind = kind


@dataclass(frozen=True, slots=True)
class WorkDevice:
    """A device that proves work: its asset id, and where it computes.

    `opencl` names an OpenCL device (see OpenclDevice.name; for an NVIDIA or AMD card ``pci:`` and its PCI address);
    without it numpy computes, on the CPUs in `cpus` (all when empty).
    """

    asset: bytes
    opencl: str = ""
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenclDevice:
    """An OpenCL device of this machine; `memory` in bytes."""

    name: str
    model: str
    vendor: str
    memory: int


class Prover:
    """Wins the proofs of one node. `plot_dir` is created when missing; `node` is the key id.

    `task_seconds` bounds every task but plotting; at most `parallel` workers run at a time.
    """

    def __init__(self, plot_dir: Path, node: bytes, *, task_seconds: float = 600, parallel: int = 2) -> None:
        self._plot_dir = plot_dir
        self._node = node
        self._task_seconds = task_seconds
        self._slots = asyncio.Semaphore(parallel)
        self._k = 0

    async def opencl_devices(self) -> list[OpenclDevice]:
        """The machine's OpenCL devices; empty without pyopencl or a driver."""
        found: list[dict[str, Any]] = await self._run("list OpenCL devices", {"action": "devices"})
        return [OpenclDevice(**item) for item in found]

    async def ensure_plot(self, k: int, progress: Progress | None = None) -> bool:
        """Have a sound plot of size `k`; True when it was made now. `progress` gets fractions 0 … 1.

        A damaged plot is replaced. Call it again when prove_space fails with PlotUnusable, ProofRefused or Crashed.
        """
        try:
            made = await self._plot(k, progress, anew=False)
        except ProverFailed as error:
            if error.kind != "Crashed":
                raise
            made = await self._plot(k, progress, anew=True)  # a plot can be damaged so that chiapos dies of it
        self._k = k
        return made

    async def commit_work(
        self, c: bytes, devices: Sequence[WorkDevice], params: proofs_pb2.ProofParameters
    ) -> list[proofs_pb2.WorkCommitment]:
        """Do the work of all devices for challenge `c`; commitments in the order of `devices`."""
        roots = await _all(self._commit(c, device, params) for device in devices)
        return [
            proofs_pb2.WorkCommitment(device=device.asset, root=root)
            for device, root in zip(devices, roots, strict=True)
        ]

    async def prove(
        self,
        c: bytes,
        epoch: int,
        seed: ledger_pb2.WorkSeed,
        params: proofs_pb2.ProofParameters,
        devices: Sequence[WorkDevice] = (),
    ) -> ledger_pb2.Prove:
        """The Prove operation of `epoch`: space, time, and the opening of every commitment in `seed`.

        A committed device that isn't among `devices` is computed again by numpy, with the same bits.
        """
        known = {device.asset: device for device in devices}
        tasks: list[Any] = [self.prove_space(c, params), self.prove_time(c, params)]
        for commitment in seed.commitments:
            device = known.get(commitment.device, WorkDevice(commitment.device))
            tasks.append(self._open(c, device, seed.seed, commitment.root, params))
        space, time, *work = await _all(tasks)
        return ledger_pb2.Prove(epoch=epoch, space=space, work=work, time=time)

    async def prove_space(self, c: bytes, params: proofs_pb2.ProofParameters) -> proofs_pb2.SpaceProof:
        """Answer `c` from the plot that ensure_plot made."""
        k = self._k or params.space_min_k
        request = {"action": "space", "directory": str(self._plot_dir), "k": k} | self._asked(c, params)
        return proofs_pb2.SpaceProof.FromString(bytes.fromhex(await self._run("proof of space", request)))

    async def prove_time(self, c: bytes, params: proofs_pb2.ProofParameters) -> proofs_pb2.TimeProof:
        """Evaluate the delay function on `c`."""
        request = {"action": "time"} | self._asked(c, params)
        return proofs_pb2.TimeProof.FromString(bytes.fromhex(await self._run("proof of time", request)))

    async def _plot(self, k: int, progress: Progress | None, *, anew: bool) -> bool:
        seconds = _PLOT_SECONDS_AT_LEAST + plot_bytes(k) / _PLOT_BYTES_A_SECOND
        request = {"action": "plot", "directory": str(self._plot_dir), "node": self._node.hex(), "k": k, "anew": anew}
        made: bool = await self._run(f"plot of k={k} in {self._plot_dir}", request, seconds, progress)
        return made

    async def _commit(self, c: bytes, device: WorkDevice, params: proofs_pb2.ProofParameters) -> bytes:
        request = {"action": "commit"} | _on(device) | self._asked(c, params)
        return bytes.fromhex(await self._run(f"work of device {device.asset.hex()[:8]}", request))

    async def _open(
        self, c: bytes, device: WorkDevice, seed: bytes, root: bytes, params: proofs_pb2.ProofParameters
    ) -> proofs_pb2.WorkProof:
        request = {"action": "open", "seed": seed.hex(), "root": root.hex()} | _on(device) | self._asked(c, params)
        reply = await self._run(f"opening of device {device.asset.hex()[:8]}", request)
        return proofs_pb2.WorkProof.FromString(bytes.fromhex(reply))

    def _asked(self, c: bytes, params: proofs_pb2.ProofParameters) -> dict[str, Any]:
        return {"c": c.hex(), "node": self._node.hex(), "params": params.SerializeToString().hex()}

    async def _run(
        self, task: str, request: dict[str, Any], seconds: float | None = None, progress: Progress | None = None
    ) -> Any:
        """One worker's result. Raises ProverFailed; the worker never outlives this call."""
        async with self._slots:
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hypermesh_agent.proofs.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_REPLY_LIMIT,
            )
            bound = seconds or self._task_seconds
            try:
                async with asyncio.timeout(bound):
                    output, log = await _converse(worker, json.dumps(request).encode(), progress)
            except TimeoutError as error:
                raise ProverFailed(
                    task, "TimedOut", f"no answer in {bound:.0f} s: the machine is overloaded or too slow for it"
                ) from error
            finally:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        if worker.returncode != 0:
            raise ProverFailed(task, "Crashed", f"worker ended with status {worker.returncode}: {' | '.join(log)}")
        reply = json.loads(output)
        if "error" in reply:
            raise ProverFailed(task, reply["error"], reply["message"])
        return reply["result"]


def _on(device: WorkDevice) -> dict[str, Any]:
    return {"device": device.asset.hex(), "opencl": device.opencl, "cpus": list(device.cpus)}


async def _all(tasks: Any) -> list[Any]:
    """Results in order; when one fails the others are cancelled (and their workers killed), and it is raised."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _converse(
    worker: asyncio.subprocess.Process, request: bytes, progress: Progress | None
) -> tuple[bytes, list[str]]:
    """Send the request, read the reply and the last lines of the log, wait for the end."""
    stdin, stdout, stderr = worker.stdin, worker.stdout, worker.stderr
    if stdin is None or stdout is None or stderr is None:
        raise RuntimeError("the worker was started without pipes")

    async def send() -> None:
        try:
            stdin.write(request)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError, RuntimeError):
            return  # it ended before it read (RuntimeError is uvloop's word for that): its status tells why
        stdin.close()

    async def follow() -> list[str]:
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        async for line in stderr:
            found = _PROGRESS.search(line)
            if found and progress is not None:
                progress(min(1.0, float(found[1])))
            kept.append(line.decode(errors="replace").strip())
        return list(kept)

    _, output, log, _ = await asyncio.gather(send(), stdout.read(), follow(), worker.wait())
    return output, log
