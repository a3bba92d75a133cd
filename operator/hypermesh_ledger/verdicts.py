"""Answers to checks, remembered: computed before a block when they can be, so that blocks are quick.

ingress: settle(check) in the verifier's processes, then judge with `known`, or one alone with `required`
         few signatures are verified at once, many in the verifier's thread
block:   its execution settles the signatures of what did not wait here, together; `required` computes at once what is
         still missing (of signers that the block itself enrols) and asks for a missing proof by raising Unsettled,
         whereupon all proofs are settled and the block is executed again (it is pure, so that costs only time)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from hypermesh.refusals import Refused
from hypermesh_ledger.checks import Check, Proof, Signature, verify_now
from hypermesh_ledger.verifier import Answer, Verifier

CAPACITY: Final = 50_000
FEW: Final = 3
"""So many signatures at most are verified where they are asked for: some 30 µs each, and to wake a thread and be woken
by it costs more than that."""


class Unsettled(Exception):
    """The answer to this check is not known yet."""

    def __init__(self, check: Check) -> None:
        super().__init__("check not settled")
        self.check = check


class Verdicts:
    """A cache of answers by the check's key."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
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

    async def settle(self, check: Check, lane: bytes | None = None) -> None:
        """Have the answer computed; lane: whose proof it is, None for a block's. Raises VerifierLost, Busy."""
        key = check.key
        if key in self._answers:
            return
        match check:
            case Signature():
                (answer,) = await self._verifier.signatures((check,))
            case Proof():
                answer = await self._verifier.verify(check, lane)
        self._remember(key, answer)

    async def settle_signatures(self, checks: Sequence[Signature]) -> None:
        """All of them together. Raises VerifierLost, Busy."""
        asked = {key: check for check in checks if (key := check.key) not in self._answers}
        if len(asked) <= FEW:
            for key, check in asked.items():
                self._remember(key, _answer(check))
        else:
            for key, answer in zip(asked, await self._verifier.signatures(list(asked.values())), strict=True):
                self._remember(key, answer)

    def _remember(self, key: bytes, answer: Answer) -> None:
        self._answers[key] = answer
        if len(self._answers) > CAPACITY:
            self._answers.popitem(last=False)

    def _tell(self, key: bytes) -> None:
        answer = self._answers[key]
        if answer is not None:
            raise Refused(*answer)


def _answer(check: Check) -> Answer:
    try:
        verify_now(check)
    except Refused as refusal:
        return refusal.reason, refusal.message
    return None
