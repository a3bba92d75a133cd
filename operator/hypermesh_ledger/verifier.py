"""Proofs verified in a process of their own: native code that parses strangers' bytes must not take the ledger along.

    application -- frame(kind, parts...) --> `python -m hypermesh_ledger.verifier` -- frame(reason, message) -->

Started at the first proof, ended by the closing of its standard input (so also when the application is killed).
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import sys
from typing import BinaryIO, Final

from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.checks import Proof, verify_now

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 1 << 16
_PARTS: Final = struct.Struct(">B6I")
_ANSWER: Final = struct.Struct(">2I")


class VerifierLost(Exception):
    """The verifier process died or hung on this proof, twice. The proof is neither accepted nor refused."""


class Verifier:
    """One verifier process, one proof at a time, started again when it died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self.waiting = 0
        """Proofs that wait for a verdict, the one under way included."""

    async def verify(self, check: Proof) -> tuple[Reason, str] | None:
        """None when the proof is good, else why not. Raises VerifierLost."""
        self.waiting += 1
        try:
            async with self._turn:
                for _ in range(2):
                    try:
                        async with asyncio.timeout(TIMEOUT_S):
                            return await self._ask(check)
                    except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
                        _log.warning("proof verifier lost: %r; starting it again", error)
                        await self._stop()
        finally:
            self.waiting -= 1
        raise VerifierLost(f"The verifier died twice on a proof of {check.subject.hex()[:16]}.")

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._stop()

    async def _ask(self, check: Proof) -> tuple[Reason, str] | None:
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


async def read_answer(reader: asyncio.StreamReader) -> tuple[Reason, str] | None:
    """None: the proof is good. Raises IncompleteReadError, and OSError for what no verifier in its right mind says."""
    lengths = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
    if max(lengths) > MAX_ANSWER_BYTES:
        raise OSError(f"the verifier answers with {max(lengths)} bytes")
    parts = [await reader.readexactly(length) for length in lengths]
    try:
        reason, message = [part.decode() for part in parts]
        return (Reason(reason), message) if reason else None
    except ValueError as error:
        raise OSError(f"the verifier answers with garbage: {error}") from error


def _frame(check: Proof) -> bytes:
    parts = (check.challenge, check.subject, check.proof, check.parameters, check.seed, check.root)
    return _PARTS.pack(check.kind, *(len(part) for part in parts)) + b"".join(parts)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer frames until the other side closes."""
    while len(header := requests.read(_PARTS.size)) == _PARTS.size:
        kind, *lengths = _PARTS.unpack(header)
        challenge, subject, proof, parameters, seed, root = (requests.read(length) for length in lengths)
        reason, message = b"", b""
        try:
            verify_now(Proof(kind, challenge, subject, proof, parameters, seed, root))
        except Refused as refusal:
            reason, message = refusal.reason.encode(), refusal.message.encode()
        answers.write(_ANSWER.pack(len(reason), len(message)) + reason + message)
        answers.flush()


def main() -> None:
    """Serve on the pipes of the start; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
