"""The verifying process may die at any moment: it is started again, and the proof gets its answer.

Signatures are verified by a thread; what it accepts is tested in unit/crypto.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys

import pytest
import uvloop

import hypermesh_native
from hypermesh import falcon
from hypermesh.digests import digest
from hypermesh.proofs.parameters import DEMO
from hypermesh.refusals import Reason
from hypermesh.v1 import proofs_pb2
from hypermesh_ledger import verifier
from hypermesh_ledger.checks import NOT_SIGNED, Proof, Signature
from hypermesh_ledger.turns import Busy
from hypermesh_ledger.verifier import Answer, Verifier, VerifierLost, _frame, _Signing

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


async def given_up_while_asked() -> list[list[Answer]]:
    """Whose answer nobody waits for any more is a proof of time; those behind it are of work and of time, in turns."""
    work = Proof(
        proofs_pb2.PROOF_KIND_WORK, b"\1" * 32, b"\2" * 32, b"", DEMO.SerializeToString(), b"\3" * 32, b"\4" * 32
    )
    time = Proof(proofs_pb2.PROOF_KIND_TIME, b"\1" * 32, b"\2" * 32, WRONG, DEMO.SerializeToString())
    verifier = Verifier()
    try:
        answers, lost = [], 0
        await verifier.verify(time, None)
        for pause in (0.0, 0.0, 0.0005, 0.001, 0.002):  # before its turn, just asked, answered perhaps
            given_up = [asyncio.create_task(verifier.verify(time, None)) for _ in range(3)]
            await asyncio.sleep(pause)
            for each in given_up:
                each.cancel()
            answers.append([await verifier.verify(each, None) for each in (work, time)])
            ends = await asyncio.gather(*given_up, return_exceptions=True)
            lost += sum(isinstance(end, asyncio.CancelledError) for end in ends)
        assert lost >= 4
        assert not verifier.waiting
        return answers
    finally:
        await verifier.close()


async def closed_while_nobody_waits() -> float:
    """Seconds that closing takes while the process, which stands still, owes somebody an answer who has gone."""
    proof = Proof(proofs_pb2.PROOF_KIND_TIME, b"\1" * 32, b"\2" * 32, WRONG, DEMO.SerializeToString())
    verifier = Verifier()
    await verifier.verify(proof, None)
    process = verifier._blocks._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    asked = asyncio.create_task(verifier.verify(proof, None))
    await asyncio.sleep(0.05)
    asked.cancel()
    await asyncio.wait((asked,))
    began = asyncio.get_running_loop().time()
    await verifier.close()
    assert process.returncode == -signal.SIGKILL
    return asyncio.get_running_loop().time() - began


def test_closing_waits_for_no_answer_that_nobody_waits_for() -> None:
    for runner in (asyncio.run, uvloop.run):
        assert runner(closed_while_nobody_waits()) < verifier.TIMEOUT_S / 2


def test_who_gives_up_leaves_no_answer_for_the_next_one() -> None:
    for runner in (asyncio.run, uvloop.run):
        for work, time in runner(given_up_while_asked()):
            assert work is not None
            assert time is not None
            assert work[0] == Reason.WorkProofInvalid
            assert time[0] == Reason.TimeProofInvalid


class Defective:
    """In place of the thread: what a defect of it would answer can't be brought about otherwise."""

    def fileno(self) -> int:
        return 0

    def submit(self, ticket: int, checks: object) -> None:
        self.ticket = ticket

    def answers(self) -> list[tuple[int, bytes]]:
        return [(self.ticket, b"")]

    def close(self) -> None:
        pass


async def test_a_signature_that_could_not_be_verified_is_neither_good_nor_bad() -> None:
    signing, defective = _Signing(), Defective()
    signing._thread = defective  # type: ignore[assignment]
    told = signing.ask([Signature(b"", b"", b"", b"")])
    signing._tell(defective)  # type: ignore[arg-type]
    with pytest.raises(VerifierLost):
        await told


async def test_without_a_thread_nothing_is_judged_and_the_next_may_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise BlockingIOError(errno.EAGAIN, "no more threads")

    signing = _Signing()
    with monkeypatch.context() as patched:
        patched.setattr(hypermesh_native, "Signatures", none_left)
        with pytest.raises(VerifierLost, match="no more threads"):
            await signing.ask([Signature(b"", b"", b"", b"")])
    assert await signing.ask([Signature(b"", b"", b"", b"")]) == [(Reason.BadSignature, NOT_SIGNED)]
    signing.close()


async def test_no_more_signatures_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes away does not make room before the thread has done with what was asked."""
    monkeypatch.setattr(verifier, "SIGNATURES", 3)
    signing, spoilt = _Signing(), Signature(b"", b"", b"", b"")
    first = signing.ask([spoilt] * 2)
    signing.ask([spoilt]).cancel()
    with pytest.raises(Busy):
        await signing.ask([spoilt])
    assert len(await first) == 2
    signing.close()
    assert len(await signing.ask([spoilt] * 3)) == 3
    signing.close()


async def signatures_judged(pair: falcon.KeyPair) -> list[list[object]]:
    """Groups at once, one whose asker has gone, and one that is still under way at the end."""
    good = falcon.sign(pair.secret, "operation", b"o", b"t")
    digests = (digest("operation", b"o", tickets) for tickets in (b"t", b"u"))
    right, wrong = (Signature(pair.public, good, signed, b"") for signed in digests)
    verifier = Verifier()
    asked = [verifier.signatures(group) for group in ([right], [], [wrong, right, wrong])]
    verifier.signatures([right] * 50).cancel()
    async with asyncio.timeout(60):
        answers: list[list[object]] = [list(each) for each in await asyncio.gather(*asked)]
    last = verifier.signatures([wrong])
    await verifier.close()
    async with asyncio.timeout(60):
        answers.append(list(await last))
        answers.append(list(await verifier.signatures([right])))  # a new thread
    await verifier.close()
    return answers


def test_signatures_are_judged_in_groups_on_both_loops() -> None:
    pair, bad = falcon.generate(), (Reason.BadSignature, NOT_SIGNED)
    for runner in (asyncio.run, uvloop.run):
        assert runner(signatures_judged(pair)) == [[None], [], [bad, None, bad], [bad], [None]]


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
