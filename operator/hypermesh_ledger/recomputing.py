"""Work computed again, in a process of its own that gives way to all: ``python -m hypermesh_ledger.recomputing``.

Standard input: challenge and device (32 bytes each), then ProofParameters. Standard output: the root, 32 bytes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from typing import Final

from hypermesh.digests import DIGEST_BYTES
from hypermesh.operations import canonical
from hypermesh.proofs import products
from hypermesh.v1 import proofs_pb2

TIMEOUT_S: Final = 600.0
"""Of one result; with production's parameters it takes one core 46 s that nobody else wants."""
_PR_SET_PDEATHSIG: Final = 1
_NICENESS: Final = 19


class Failed(Exception):
    """The worker gave no root in time; says why."""


async def root_of(challenge: bytes, device: bytes, params: proofs_pb2.ProofParameters) -> bytes:
    """32 bytes. Raises Failed. The worker does not outlive the call."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            root, _ = await worker.communicate(challenge + device + canonical(params))
    except TimeoutError as error:
        raise Failed(f"no result in {TIMEOUT_S:.0f} s: this machine is busy or too slow for it") from error
    except RuntimeError as error:  # uvloop's word for a pipe whose other end has gone
        raise Failed(f"the worker ended before it was asked, with status {await worker.wait()}") from error
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    if worker.returncode or len(root) != DIGEST_BYTES:
        raise Failed(f"the worker ended with status {worker.returncode} and {len(root)} bytes")
    return root


def main() -> None:
    """One task. Dies with the ledger (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    asked = sys.stdin.buffer.read()
    challenge, device, params = asked[:DIGEST_BYTES], asked[DIGEST_BYTES : 2 * DIGEST_BYTES], asked[2 * DIGEST_BYTES :]
    parameters = proofs_pb2.ProofParameters.FromString(params)
    sys.stdout.buffer.write(products.commit(challenge, device, parameters, products.multiply_numpy))


if __name__ == "__main__":
    main()
