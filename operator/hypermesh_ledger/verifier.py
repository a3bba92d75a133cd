"""Signatures and proofs verified beside the event loop.

    application -- frame(kind, parts...) --> `python -m hypermesh_ledger.verifier` -- (reason, text) --> application

Proofs in processes of their own, each started when it is first needed, because native code that parses strangers' bytes
must not take the ledger along: in one those that a block waits for, in another everybody else's, in turn. They are
ended by the closing of their standard input (also when the ledger is killed). Signatures in a thread that never takes
the interpreter (hypermesh_native): what parses them has no memory to spoil, and a pipe would cost more than they do.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final

import hypermesh_native
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.checks import NOT_SIGNED, Proof, Signature, verify_now
from hypermesh_ledger.turns import Busy, Turns

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 1 << 16
SIGNATURES: Final = 32_768
"""That wait at once, at most, some 3 KB each: also of those who asked and went away."""
_PARTS: Final = struct.Struct(">B6I")
_ANSWER: Final = struct.Struct(">2I")

Answer = tuple[Reason, str] | None
"""None for accepted, else the refusal (as plain values: an exception would keep its frames, and the bytes in them)."""
_BAD: Final = (Reason.BadSignature, NOT_SIGNED)


class VerifierLost(Exception):
    """The process died or hung on this, twice; or the thread failed. It is neither accepted nor refused."""


class Verifier:
    """Two processes and one thread at most; all calls on one event loop."""

    def __init__(self) -> None:
        self._blocks, self._others, self._signing = _Process(), _Process(), _Signing()
        self._turns = Turns()
        self.waiting = 0
        """Proofs that wait for a verdict, those under way included."""

    async def verify(self, check: Proof, lane: bytes | None) -> Answer:
        """lane: whose, None for a block's. Raises VerifierLost, Busy."""
        self.waiting += 1
        try:
            if lane is None:
                return await self._blocks.ask(check)
            async with self._turns.turn(lane):
                return await self._others.ask(check)
        finally:
            self.waiting -= 1

    def signatures(self, checks: Sequence[Signature]) -> asyncio.Future[list[Answer]]:
        """First come, first served: it takes less than to receive one, and the signer is only claimed.

        The future may raise VerifierLost, Busy.
        """
        return self._signing.ask(checks)

    async def close(self) -> None:
        """End processes and thread."""
        self._signing.close()
        for each in (self._blocks, self._others):
            await each.close()


class _Signing:
    """The thread that verifies signatures, from its first to `close`, and who waits for which of them."""

    def __init__(self) -> None:
        self._thread: hypermesh_native.Signatures | None = None
        self._tickets = itertools.count()
        self._asked: dict[int, tuple[int, asyncio.Future[list[Answer]]]] = {}
        """By ticket: how many, and who is to be told."""
        self._waiting = 0

    def ask(self, checks: Sequence[Signature]) -> asyncio.Future[list[Answer]]:
        """The future raises VerifierLost when there is no thread to be had; the next call tries again."""
        told: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        if self._waiting + len(checks) > SIGNATURES:
            told.set_exception(Busy())
            return told
        try:
            thread = self._thread = self._thread or self._started()
        except OSError as error:
            _log.warning("no thread to verify signatures: %r", error)
            told.set_exception(VerifierLost(f"No thread to verify it: {error}."))
            return told
        ticket = next(self._tickets)
        self._asked[ticket] = len(checks), told
        self._waiting += len(checks)
        thread.submit(ticket, [(check.public, check.signature, check.digest) for check in checks])
        return told

    def _started(self) -> hypermesh_native.Signatures:
        thread = hypermesh_native.Signatures()
        asyncio.get_running_loop().add_reader(thread.fileno(), self._tell, thread)
        return thread

    def close(self) -> None:
        """Everybody has an answer then."""
        if self._thread is not None:
            asyncio.get_running_loop().remove_reader(self._thread.fileno())
            self._thread.close()
            self._tell(self._thread)
            self._thread = None

    def _tell(self, thread: hypermesh_native.Signatures) -> None:
        for ticket, good in thread.answers():
            count, told = self._asked.pop(ticket)
            self._waiting -= count
            if told.done():
                continue
            if len(good) == count:
                told.set_result([None if each else _BAD for each in good])
            else:
                told.set_exception(VerifierLost("The verifier failed on it; that is a defect."))


class _Process:
    """One process, one question at a time, started again when it died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._given_up: asyncio.Task[Answer] | None = None
        """What is under way and nobody waits for."""

    async def ask(self, check: Proof) -> Answer:
        """Raises VerifierLost. Whoever gives up waiting leaves the line; an answer that was asked for is read all the
        same, before the next question: nobody may get another's."""
        await self._turn.acquire()
        answered = asyncio.create_task(self._answered(check))
        answered.add_done_callback(self._ended)
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            self._given_up = answered
            raise

    def _ended(self, answered: asyncio.Task[Answer]) -> None:
        self._turn.release()
        self._given_up = None
        if not answered.cancelled():
            answered.exception()  # told to who waits; nobody may wait any more

    async def _answered(self, check: Proof) -> Answer:
        for _ in range(2):
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._ask(check)
            except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
                _log.warning("verifier lost: %r; starting it again", error)
                await self._stop()
        raise VerifierLost("The verifier died twice on it.")

    async def close(self) -> None:
        """End the process, when those who wait have their answers."""
        if self._given_up is not None:
            self._given_up.cancel()
        async with self._turn:
            await self._stop()

    async def _ask(self, check: Proof) -> Answer:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                __name__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        writer, reader = self._process.stdin, self._process.stdout
        if writer is None or reader is None:
            raise OSError("the verifier has no pipes")
        try:
            writer.write(_frame(check))
        except RuntimeError as error:  # uvloop's word for a pipe whose other end has gone
            raise OSError(f"the verifier closed its input: {error}") from error
        await writer.drain()
        return await read_answer(reader)

    async def _stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """None: it is good. Raises IncompleteReadError, and OSError for what no verifier in its right mind says."""
    first, second = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
    if first + second > MAX_ANSWER_BYTES:
        raise OSError(f"the verifier answers with {first + second} bytes")
    try:
        reason, message = (await reader.readexactly(first)).decode(), (await reader.readexactly(second)).decode()
        return (Reason(reason), message) if reason else None
    except ValueError as error:
        raise OSError(f"the verifier answers with garbage: {error}") from error


def _frame(check: Proof) -> bytes:
    parts = (check.challenge, check.subject, check.proof, check.parameters, check.seed, check.root)
    return b"".join((_PARTS.pack(check.kind, *map(len, parts)), *parts))


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer frames until the other side closes."""
    while len(header := requests.read(_PARTS.size)) == _PARTS.size:
        kind, *lengths = _PARTS.unpack(header)
        reason, message = b"", b""
        try:
            verify_now(Proof(kind, *(requests.read(length) for length in lengths)))
        except Refused as refusal:
            reason, message = refusal.reason.encode(), refusal.message.encode()
        answers.write(_ANSWER.pack(len(reason), len(message)) + reason + message)
        answers.flush()


def main() -> None:
    """Serve on the pipes of the start; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        _serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(0)  # the application was killed: nobody is left to answer, and closing `answers` would fail aloud


if __name__ == "__main__":
    main()
