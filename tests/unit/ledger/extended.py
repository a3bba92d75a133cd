"""A chain whose validators extend their votes, as CometBFT has them: signed, sets delayed by two heights, in order."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from hypermesh import operations
from hypermesh.v1 import votes_pb2
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, Outcome, Vote, execute, extensions

from ...builders import TrustRoot
from .test_validators import CHAIN, Chain, address, consensus, public


@functools.cache
def signature(number: int, signed: bytes) -> bytes:
    """The same for the same, as CometBFT's are (OpenSSL signs with fresh randomness)."""
    return consensus(number).sign(signed)


class Extended(Chain):
    """Four validators (0 to 3) with extensions on, unless joined=False; `sets` is who signs which height."""

    def __init__(self, root: TrustRoot, *, joined: bool = True) -> None:
        super().__init__(root)
        self.sets: dict[int, list[int]] = {self.height + ahead: [0] for ahead in range(3)}
        self.enable_height = 0
        self.say: dict[int, bytes] = {}
        """By validator, what it says instead of its clock."""
        if joined:
            for number in range(4):
                (result,) = self.go(self.joining(number, extends_votes=True)).operations
                assert result.reason is None, result
            while self.height <= self.enable_height:
                self.go()

    def signing(self, height: int) -> list[int]:
        """Numbers of the validators whose votes commit that height."""
        return self.sets.get(height, [])

    def votes(self, height: int) -> list[Vote]:
        """For the block of that height."""
        return [Vote(address(n), n not in self.away, n not in self.away) for n in self.signing(height)]

    def commit(self, height: int, round_: int = 0) -> votes_pb2.ExtendedCommit:
        """What an honest proposer of the next height shows."""
        commit = votes_pb2.ExtendedCommit(height=height, round=round_)
        for number in self.signing(height):
            if number not in self.away:
                self.add(commit, number)
        return commit

    def add(self, commit: votes_pb2.ExtendedCommit, number: int) -> None:
        said = self.say.get(number)
        if said is None:
            said = operations.canonical(votes_pb2.VoteExtension(clock_ms=self.now_ms))
        signed = extensions.sign_bytes(CHAIN, commit.height, commit.round, said)
        commit.votes.add(address=address(number), extension=said, signature=signature(number, signed))

    def first(self) -> list[bytes]:
        """What the next block has to begin with."""
        if not extensions.required(self.state, self.height + 1):
            return []
        return [extensions.encode(self.commit(self.height))]

    def block_of(self, *txs: bytes, after_ms: int = 10, round_: int = 0) -> Block:
        """The next block with exactly these transactions."""
        height = self.height + 1
        digest = operations.tx_hash(height.to_bytes(8, "big"))
        return Block(height, self.now_ms + after_ms, digest, txs, self.votes(height - 1), (), round_)

    def go(self, *txs: bytes, after_ms: int = 10) -> Outcome:
        """An honest block, applied."""
        return self.apply(self.block_of(*self.first(), *txs, after_ms=after_ms))

    def apply(self, block: Block) -> Outcome:
        outcome = execute(self.state, block, verify_now)
        self.state.write(outcome.writes)
        self.blocks.append(block)
        self.height, self.now_ms = block.height, block.time_ms
        if outcome.enable_height:
            assert not self.enable_height
            assert outcome.enable_height > block.height, "CometBFT takes no height that is over"
            self.enable_height = outcome.enable_height
        for each in outcome.powers:
            if each.power:
                self.powers[each.consensus_key] = each.power
            else:
                del self.powers[each.consensus_key]
        numbers: Mapping[bytes, int] = {public(number): number for number in range(12)}
        self.sets.setdefault(block.height + 1, self.signing(block.height))
        self.sets[block.height + 2] = [numbers[key] for key in sorted(self.powers)]
        return outcome
