"""Memories for tests: filled for real, in blocks of the real size, and whoever pretends to have one.

A cheat here is a rule that says which bytes it has for each block; whatever it hasn't, it answers with something else.
Real time plays no part: that what is missing can't be made again in time is a matter of the deadline, which the ledger
checks, and of the prices that hack/bench/proofs.py measures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from hypermesh.proofs import ProofRefused, fill, memory, verify_memory
from hypermesh.proofs.challenges import memory_key, memory_question
from hypermesh.v1 import proofs_pb2

Held = Callable[[int], bytes | None]
"""What somebody holds of a block: its bytes, right or wrong, or None when nothing."""


@cache
def _block(key: bytes, number: int, kib: int, passes: int) -> bytes:
    return fill.block(key, number, kib, passes)


def block(owner: bytes, asset: bytes, number: int, params: proofs_pb2.MemoryParameters) -> bytes:
    """The right bytes of a block; made once in a test run."""
    return _block(memory_key(owner, asset, params), number, params.block_kib, params.passes)


class Claim:
    """A commitment of `slabs` slabs to challenge `c`, answered from what `held` gives."""

    def __init__(
        self, owner: bytes, asset: bytes, c: bytes, slabs: int, params: proofs_pb2.MemoryParameters, held: Held
    ) -> None:
        question = memory_question(c, asset, slabs)
        answers = []
        for number in range(memory.blocks(slabs, params)):
            have = held(number)
            answers.append(bytes(32) if have is None else memory.answer(question, number, have, params))
        self._check = owner, c
        self._params = params
        self.levels = memory.tree(answers)
        self.commitment = proofs_pb2.MemoryCommitment(asset=asset, slabs=slabs, root=self.levels[-1][0])

    def proof(self, seed: bytes) -> proofs_pb2.MemoryProof:
        """The paths that the seed asks for."""
        return memory.open_blocks(self.levels, seed, self.commitment, self._params)

    def passes(self, seed: bytes) -> bool:
        """Whether the verifier takes it, under this seed; it makes every block once in a run of all tests."""
        owner, c = self._check
        try:
            verify_memory(owner, c, seed, self.commitment, self.proof(seed), self._params, make=_block)
        except ProofRefused:
            return False
        return True
