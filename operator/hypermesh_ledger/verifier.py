"""Signatures and proofs verified in processes of their own, each started when it is first needed.

    application -- frame(kind, last, parts...)* --> `python -m hypermesh_ledger.verifier` -- size, (reason, text)* -->

Proofs, because native code that parses strangers' bytes must not take the ledger along; in one process those that a
block waits for, in another everybody else's, in turn. Signatures, because threads share one interpreter: a busy
ledger would wait for each of theirs. Ended by the closing of their standard input (also when the ledger is killed).
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO, Final

from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.checks import Check, Proof, Signature, verify_now
from hypermesh_ledger.turns import Turns

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
MAX_ANSWER_BYTES: Final = 1 << 16
AT_ONCE: Final = 256
"""Signatures sent together at most, unless one call brings more."""
SIGNATURE: Final = 0
"""In place of a proof's kind; that of no proof."""
_PARTS: Final = struct.Struct(">BB6I")
_SIZE: Final = struct.Struct(">I")
"""Of all answers to the frames up to one that is the last."""
_ANSWER: Final = struct.Struct(">2I")

Answer = tuple[Reason, str] | None
"""None for accepted, else the refusal (as plain values: an exception would keep its frames, and the bytes in them)."""


class VerifierLost(Exception):
    """The process died or hung on this, twice. It is neither accepted nor refused."""


class Verifier:
    """Three processes at most; all calls on one event loop."""

    def __init__(self) -> None:
        self._blocks, self._others, self._signing = _Process(), _Process(), _Process()
        self._turns = Turns()
        self.waiting = 0
        """Proofs that wait for a verdict, those under way included."""
        self._signatures: deque[tuple[Sequence[Signature], asyncio.Future[list[Answer]]]] = deque()
        self._emptying: asyncio.Task[None] | None = None

    async def verify(self, check: Proof, lane: bytes | None) -> Answer:
        """lane: whose, None for a block's. Raises VerifierLost, Busy."""
        self.waiting += 1
        try:
            if lane is None:
                return (await self._blocks.ask([check]))[0]
            async with self._turns.turn(lane):
                return (await self._others.ask([check]))[0]
        finally:
            self.waiting -= 1

    def signatures(self, checks: Sequence[Signature]) -> asyncio.Future[list[Answer]]:
        """First come, first served: it takes less than to receive one, and the signer is only claimed.

        Those that come while others are being verified are sent together. The future may raise VerifierLost.
        """
        told: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._signatures.append((checks, told))
        if self._emptying is None or self._emptying.done():
            self._emptying = asyncio.create_task(self._empty())
        return told

    async def _empty(self) -> None:
        while self._signatures:
            some = [self._signatures.popleft()]
            asked = list(some[0][0])
            while self._signatures and len(asked) + len(self._signatures[0][0]) <= AT_ONCE:
                some.append(self._signatures.popleft())
                asked += some[-1][0]
            try:
                answers = iter(await self._signing.ask(asked))
            except VerifierLost as error:
                for _, told in some:
                    if not told.done():
                        told.set_exception(error)
                continue
            for checks, told in some:
                mine = [next(answers) for _ in checks]
                if not told.done():
                    told.set_result(mine)

    async def close(self) -> None:
        """End the processes."""
        for each in (self._blocks, self._others, self._signing):
            await each.close()


class _Process:
    """One process, one question at a time, started again when it died."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def ask(self, checks: Sequence[Check]) -> list[Answer]:
        """Raises VerifierLost."""
        async with self._turn:
            for _ in range(2):
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        return await self._ask(checks)
                except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
                    _log.warning("verifier lost: %r; starting it again", error)
                    await self._stop()
        raise VerifierLost("The verifier died twice on it.")

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._stop()

    async def _ask(self, checks: Sequence[Check]) -> list[Answer]:
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
            writer.write(b"".join(_frame(check, check is checks[-1]) for check in checks))
        except RuntimeError as error:  # uvloop's word for a pipe whose other end has gone
            raise OSError(f"the verifier closed its input: {error}") from error
        await writer.drain()
        return await read_answers(reader, len(checks))

    async def _stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None


async def read_answers(reader: asyncio.StreamReader, count: int) -> list[Answer]:
    """None: it is good. Raises IncompleteReadError, and OSError for what no verifier in its right mind says."""
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    if size > count * MAX_ANSWER_BYTES:
        raise OSError(f"the verifier answers with {size} bytes")
    rest = await reader.readexactly(size)
    if rest == bytes(count * _ANSWER.size):
        return [None] * count
    answers: list[Answer] = []
    try:
        while rest:
            first, second = _ANSWER.unpack_from(rest)
            end = _ANSWER.size + first + second
            if end > len(rest):
                raise ValueError("an answer is cut off")
            reason, message = rest[_ANSWER.size : end - second].decode(), rest[end - second : end].decode()
            answers.append((Reason(reason), message) if reason else None)
            rest = rest[end:]
    except (ValueError, struct.error) as error:
        raise OSError(f"the verifier answers with garbage: {error}") from error
    if len(answers) != count:
        raise OSError(f"the verifier answers {len(answers)} times instead of {count}")
    return answers


def _frame(check: Check, last: bool = True) -> bytes:
    match check:
        case Signature():
            kind, parts = SIGNATURE, (check.public, check.signature, check.operation, check.tickets, b"", b"")
        case Proof():
            kind = check.kind
            parts = (check.challenge, check.subject, check.proof, check.parameters, check.seed, check.root)
    return _PARTS.pack(kind, last, *(len(part) for part in parts)) + b"".join(parts)


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer frames until the other side closes."""
    told = b""
    while len(header := requests.read(_PARTS.size)) == _PARTS.size:
        kind, last, *lengths = _PARTS.unpack(header)
        parts = [requests.read(length) for length in lengths]
        check = Signature(parts[0], parts[1], parts[2], parts[3], b"") if kind == SIGNATURE else Proof(kind, *parts)
        reason, message = b"", b""
        try:
            verify_now(check)
        except Refused as refusal:
            reason, message = refusal.reason.encode(), refusal.message.encode()
        told += _ANSWER.pack(len(reason), len(message)) + reason + message
        if last:
            answers.write(_SIZE.pack(len(told)) + told)
            answers.flush()
            told = b""


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
