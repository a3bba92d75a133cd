"""The verifying process may die at any moment: it is started again, and the proof gets its answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import uvloop

from hypermesh.proofs.parameters import DEMO
from hypermesh.refusals import Reason
from hypermesh.v1 import proofs_pb2
from hypermesh_ledger.checks import Proof
from hypermesh_ledger.verifier import Verifier, _frame

WRONG = proofs_pb2.TimeProof(iterations=DEMO.vdf_iterations, output=b"no form").SerializeToString()


async def killed_between_proofs() -> list[object]:
    """Answers before and after a kill; the pipe of the dead process is closed by the loop in between."""
    spoilt = Proof(proofs_pb2.PROOF_KIND_TIME, b"\1" * 32, b"\2" * 32, WRONG, DEMO.SerializeToString(), b"", b"")
    verifier = Verifier()
    try:
        answers: list[object] = [await verifier.verify(spoilt, None)]
        for pause in (0.0, 0.2):
            process = verifier._blocks._process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.sleep(pause)
            answers.append(await verifier.verify(spoilt, None))
        return answers
    finally:
        await verifier.close()


def test_a_killed_verifier_is_replaced_on_both_loops() -> None:
    for runner in (asyncio.run, uvloop.run):
        answers = runner(killed_between_proofs())
        assert len(answers) == 3
        assert all(answer is not None and answer[0] == Reason.TimeProofInvalid for answer in answers)  # type: ignore[index]


def test_a_verifier_whose_application_was_killed_ends_quietly() -> None:
    spoilt = Proof(proofs_pb2.PROOF_KIND_TIME, b"\1" * 32, b"\2" * 32, WRONG, DEMO.SerializeToString(), b"", b"")
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "hypermesh_ledger.verifier"],
        input=_frame(spoilt),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")
