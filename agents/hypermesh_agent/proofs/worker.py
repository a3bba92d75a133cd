"""One proving task in a process of its own: ``python -m hypermesh_agent.proofs.worker``.

One JSON request on stdin, one JSON reply on stdout: ``{"result": …}`` or ``{"error": kind, "message": …}``; bytes
are hexadecimal. What native code prints on stdout goes to stderr (chiapos prints its progress there). The worker
is nice to the machine's real work, and dies with the agent that started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypermesh.proofs import ProofRefused, delay, products, verify_time, verify_work
from hypermesh.proofs.challenges import time_seed
from hypermesh.v1 import proofs_pb2
from hypermesh_agent.proofs import opencl, plots

if TYPE_CHECKING:
    from hypermesh.proofs.products import Multiply

Request = dict[str, Any]

# A third of an ordinary process' share when all CPUs are wanted: enough to prove within an epoch.
_NICENESS = 5
_PR_SET_PDEATHSIG = 1


def _bytes(request: Request, name: str) -> bytes:
    return bytes.fromhex(request[name])


def _params(request: Request) -> proofs_pb2.ProofParameters:
    return proofs_pb2.ProofParameters.FromString(_bytes(request, "params"))


def _multiply(request: Request) -> Multiply:
    """The product on the device that the request names; pins a CPU device to its own CPUs first."""
    if request.get("opencl"):
        return opencl.multiplier(request["opencl"])
    if request.get("cpus"):
        os.sched_setaffinity(0, request["cpus"])  # before numpy starts its threads
    return products.multiply_numpy


def plot(request: Request) -> bool:
    """Make or check the node's plot; true when it was made."""
    return plots.ensure(Path(request["directory"]), _bytes(request, "node"), request["k"], anew=request["anew"])


def space(request: Request) -> str:
    """Answer the challenge from the plot."""
    directory, node = Path(request["directory"]), _bytes(request, "node")
    proof = plots.answer(directory, node, request["k"], _bytes(request, "c"), _params(request))
    return proof.SerializeToString(deterministic=True).hex()


def commit(request: Request) -> str:
    """Do the work of one device; its root."""
    multiply = _multiply(request)
    return products.commit(_bytes(request, "c"), _bytes(request, "device"), _params(request), multiply).hex()


def open_work(request: Request) -> str:
    """Open the work of one device at the sampled tiles."""
    multiply = _multiply(request)
    c, device, seed, root = (_bytes(request, name) for name in ("c", "device", "seed", "root"))
    params = _params(request)
    proof = products.open_work(c, device, seed, root, params, multiply)
    verify_work(c, device, seed, root, proof, params)
    return proof.SerializeToString(deterministic=True).hex()


def time(request: Request) -> str:
    """Evaluate the delay function."""
    import chiavdf

    c, params = _bytes(request, "c"), _params(request)
    seed, bits = time_seed(c), params.vdf_discriminant_bits
    output = chiavdf.prove(seed, delay.GENERATOR, bits, params.vdf_iterations, "")
    proof = proofs_pb2.TimeProof(iterations=params.vdf_iterations, output=output)
    verify_time(c, proof, params)
    return proof.SerializeToString(deterministic=True).hex()


def devices(request: Request) -> list[dict[str, Any]]:
    """The OpenCL devices of this machine."""
    return [
        {"name": name, "model": found.name.strip(), "vendor": found.vendor.strip(), "memory": found.global_mem_size}
        for name, found in opencl.devices()
    ]


ACTIONS: dict[str, Callable[[Request], Any]] = {
    "plot": plot,
    "space": space,
    "commit": commit,
    "open": open_work,
    "time": time,
    "devices": devices,
}


def reply_to(text: str) -> dict[str, Any]:
    """Run one request; errors that a person can act on become a reply, all others end the worker."""
    request: Request = json.loads(text)
    try:
        return {"result": ACTIONS[request["action"]](request)}
    except (plots.PlotUnusable, opencl.DeviceMissing, ProofRefused) as error:
        return {"error": type(error).__name__, "message": str(error)}


def _die_with_parent() -> None:
    """Linux kills this process when the agent's thread that started it ends, however it ends (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _die_with_parent()
    os.nice(_NICENESS)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write(json.dumps(reply_to(sys.stdin.read())))
    answers.close()


if __name__ == "__main__":
    main()
