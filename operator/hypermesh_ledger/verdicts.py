"""Answers to checks, remembered: computed before a block when they can be, so that blocks are quick.

ingress: settle(check) in a thread (signatures) or in the verifier process (proofs), then judge with `known`
block:   `required` computes a missing signature at once and asks for a missing proof by raising Unsettled;
         FinalizeBlock settles all of them and executes again (execution is pure, so that costs only time)
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.checks import Check, Proof, Signature, verify_now
from hypermesh_ledger.verifier import Verifier

CAPACITY: Final = 50_000
THREADS: Final = 2


class Unsettled(Exception):
    """The answer to this check is not known yet."""

    def __init__(self, check: Check) -> None:
        super().__init__("check not settled")
        self.check = check


Answer = tuple[Reason, str] | None
"""None for accepted, else the refusal (as plain values: an exception would keep its frames, and the bytes in them)."""


class Verdicts:
    """A cache of answers by the check's key."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="signature")
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def known(self, check: Check) -> None:
        """Raises Refused, or Unsettled when there is no answer yet."""
        key = check.key
        if key not in self._answers:
            raise Unsettled(check)
        self._tell(key)

    def required(self, check: Check) -> None:
        """Like `known`, but computes a signature that nobody has checked before."""
        key = check.key
        if key not in self._answers:
            if isinstance(check, Proof):
                raise Unsettled(check)
            self._remember(key, _answer(check))
        self._tell(key)

    async def settle(self, check: Check) -> None:
        """Have the answer computed off the event loop. Raises VerifierLost when the verifier died of it twice."""
        key = check.key
        if key in self._answers:
            return
        match check:
            case Signature():
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._threads, _answer, check)
            case Proof():
                answer = await self._verifier.verify(check)
        self._remember(key, answer)

    def _remember(self, key: bytes, answer: Answer) -> None:
        self._answers[key] = answer
        if len(self._answers) > CAPACITY:
            self._answers.popitem(last=False)

    def _tell(self, key: bytes) -> None:
        answer = self._answers[key]
        if answer is not None:
            raise Refused(*answer)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _answer(check: Check) -> Answer:
    try:
        verify_now(check)
    except Refused as refusal:
        return refusal.reason, refusal.message
    return None
