"""Vote extensions: what validators say beside their votes for one block, shown and verified in the next.

    ExtendVote (block h) -> precommits -> PrepareProposal (h+1): first transaction -> ProcessProposal, execute: verified

They begin by themselves once a set of four or more has said that its programs extend votes, and never end (CometBFT
allows no way back). From then on the first transaction of every block is an ExtendedCommit with more than two thirds
of the votes, out of the block's last commit, each signature checked against the keys that signed blocks at that height.
Decision and reasons: docs/decisions/0040-vote-extensions.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from google.protobuf.message import DecodeError, Message

from hypermesh.digests import digest
from hypermesh.operations import canonical
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.delimited import delimited
from hypermesh_ledger.execution import epochs
from hypermesh_ledger.execution.context import Vote, read
from hypermesh_ledger.execution.validators import LEAST, SIGNATURE_BYTES, address_of, holds, seats
from hypermesh_ledger.state import Fork, Reader

PREFIX: Final = b"\0hypermesh/votes\0"
"""No field of a protobuf has number 0, so no operation begins like this: every other decoder refuses it."""
MAX_EXTENSION_BYTES: Final = 4096
"""A set of 250 fills half of a block with extensions and signatures of this size."""
DELAY_BLOCKS: Final = 2
"""CometBFT lets a block's new powers sign the next but one."""
RULES: Final = 1
"""The newest rules of what votes say that this program executes; 1: round trips (see places)."""
APART_MS: Final = 60_000
"""Clocks that differ more from block time than what operations are allowed to."""
_LATEST_MS: Final = 1 << 53

Heard = Sequence[tuple[bytes, votes_pb2.VoteExtension]]
"""Addresses of validators and what they said."""


# -- what one validator says -------------------------------------------------------------------------------------


def parse(extension: bytes) -> votes_pb2.VoteExtension | None:
    """None for what no validator may send; empty bytes say nothing, which is fine. Depends on the bytes alone.

    Fields that this program does not know are let through: a newer validator's vote counts like any other.
    """
    if len(extension) > MAX_EXTENSION_BYTES:
        return None
    try:
        said = votes_pb2.VoteExtension.FromString(extension)
    except (DecodeError, RecursionError):
        return None
    in_time = 0 <= said.clock_ms < _LATEST_MS
    return said if in_time else None


def sign_bytes(chain_id: str, height: int, round_: int, extension: bytes) -> bytes:
    """What CometBFT v0.40 signs (types.VoteExtensionSignBytes): CanonicalVoteExtension, its length before it."""
    body = canonical(votes_pb2.SignedExtension(extension=extension, height=height, round=round_, chain_id=chain_id))
    return delimited(body)


# -- the first transaction of a block ----------------------------------------------------------------------------


def recognise(tx: bytes) -> bool:
    """Whether these bytes mean to be the votes of the block before."""
    return tx.startswith(PREFIX)


def encode(commit: votes_pb2.ExtendedCommit) -> bytes:
    """As a transaction."""
    return PREFIX + canonical(commit)


def required(base: Reader, height: int) -> bool:
    """Whether the block of this height must show the votes for the block before."""
    begun = read(base, keys.EXTENSIONS, votes_pb2.Extensions)
    return begun is not None and height > begun.enable_height


def verified(
    base: Reader, chain_id: str, height: int, round_: int, votes: Sequence[Vote], tx: bytes
) -> votes_pb2.ExtendedCommit:
    """The votes that the block of this height shows; votes and round are those of its last commit.

    A vote of that commit may be left out while more than two thirds of the set are shown: CometBFT counts votes that
    come after these without asking VerifyVoteExtension, so a liar's can say what no block may show.

    Raises Refused(Malformed | NotCanonical | BadSignature).
    """
    commit = votes_pb2.ExtendedCommit()
    _parse_strictly(commit, tx)
    if (commit.height, commit.round) != (height - 1, round_):
        text = f"Votes of height {commit.height}, round {commit.round}; the last commit is {height - 1}, {round_}."
        raise Refused(Reason.Malformed, text)
    signing = signers(base, height - 1)
    addresses = [each.address for each in commit.votes]
    counted = iter([vote.address for vote in votes if vote.committed])
    if not all(address in counted for address in addresses):
        raise Refused(Reason.Malformed, "The votes are not those of the block's last commit, in its order.")
    if len(set(addresses)) != len(addresses) or 3 * len(addresses) <= 2 * len(signing):
        raise Refused(Reason.Malformed, f"{len(addresses)} votes of a set of {len(signing)} decide nothing.")
    for each in commit.votes:
        key = signing.get(each.address)
        if key is None or parse(each.extension) is None:
            raise Refused(Reason.Malformed, f"The vote of {each.address.hex()} is none that can be counted.")
        signed = sign_bytes(chain_id, commit.height, commit.round, each.extension)
        if len(each.signature) != SIGNATURE_BYTES or not _signed(key, each.signature, signed):
            raise Refused(Reason.BadSignature, f"{each.address.hex()} has not signed this extension.")
    return commit


def signers(state: Reader, height: int) -> dict[bytes, bytes]:
    """Consensus keys by address of who signs the block of this height (one that is not below the kept ones)."""
    chosen = None
    for key, value in state.scan(keys.SIGNERS):
        if keys.index_time(key, keys.SIGNERS) > height:
            break
        chosen = value
    return {} if chosen is None else _by_address(chosen)


@functools.lru_cache(maxsize=8)
def _by_address(signing_set: bytes) -> dict[bytes, bytes]:
    """Shared: never changed."""
    return {address_of(each): each for each in votes_pb2.SigningSet.FromString(signing_set).consensus_keys}


def _parse_strictly(commit: votes_pb2.ExtendedCommit, tx: bytes) -> None:
    body = tx.removeprefix(PREFIX)
    try:
        commit.ParseFromString(body)
    except (DecodeError, RecursionError) as error:
        raise Refused(Reason.Malformed, "The votes are not a protobuf message.") from error
    _discard_unknown(commit)
    if not recognise(tx) or canonical(commit) != body:
        raise Refused(Reason.NotCanonical, "The votes' bytes are not their deterministic serialization.")


def _discard_unknown(message: Message) -> None:
    message.DiscardUnknownFields()  # type: ignore[no-untyped-call, unused-ignore]


@functools.lru_cache(maxsize=1024)
def _signed(public: bytes, signature: bytes, signed: bytes) -> bool:
    """ML-DSA-65; remembered, since a block is verified when it is proposed and again when it is executed."""
    try:
        _consensus_key(public).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=256)
def _consensus_key(public: bytes) -> MLDSA65PublicKey:
    """Raises ValueError."""
    return MLDSA65PublicKey.from_public_bytes(public)


# -- every block -------------------------------------------------------------------------------------------------


def heard(commit: votes_pb2.ExtendedCommit) -> Heard:
    """What was said, without those who said nothing."""
    said = [(each.address, parse(each.extension)) for each in commit.votes]
    return [(address, each) for address, each in said if each is not None and each.ByteSize()]


def take_in(state: Fork, commit: votes_pb2.ExtendedCommit, time_ms: int) -> None:
    """Beacon and clock. The state changes when an epoch begins (in this block: its time is time_ms), or clocks part."""
    epoch = read(state, keys.EPOCH, ledger_pb2.Epoch)
    begins = epoch is not None and epoch.started_ms == time_ms
    if begins:
        epochs.mix_in(state, digest("beacon/votes", *(each.signature for each in commit.votes)))
    clock = clock_of(commit, len(signers(state, commit.height)), time_ms)
    if clock is not None:
        held = read(state, keys.CLOCK, votes_pb2.VoteClock)
        if held is None or begins or held.apart != clock.apart:
            state.put(keys.CLOCK, canonical(clock))


def clock_of(commit: votes_pb2.ExtendedCommit, members: int, block_ms: int) -> votes_pb2.VoteClock | None:
    """None unless more than two thirds of the members told their clock: of fewer, liars could be the middle."""
    clocks = sorted(each.clock_ms for _, each in heard(commit) if each.clock_ms)
    if 3 * len(clocks) <= 2 * members:
        return None
    median = clocks[(len(clocks) - 1) // 2]
    return votes_pb2.VoteClock(
        height=commit.height,
        median_ms=median,
        block_ms=block_ms,
        clocks=len(clocks),
        apart=abs(median - block_ms) > APART_MS,
    )


def follow(state: Fork, height: int, votes: Sequence[Vote], changed: bool) -> int:
    """At the end of a block: begin when all can, and keep who signs from when; the height to enable, or 0.

    votes: of the block before; all powers must be known by their seats. changed: whether this block gave or took some.
    """
    begun = state.get(keys.EXTENSIONS) is not None
    enable = 0
    if not begun:
        if not any(key.startswith(keys.VALIDATOR) for key in state.writes):
            return 0
        every = seats(state)
        members, known = [each for each in every if holds(each)], {address_of(each.consensus_key) for each in every}
        can = all(each.extends_votes for each in members) and all(vote.address in known for vote in votes)
        if len(members) < LEAST or not can:
            return 0
        enable = height + DELAY_BLOCKS
        state.put(keys.EXTENSIONS, canonical(votes_pb2.Extensions(enable_height=enable)))
    if changed or enable:
        _keep_signers(state, height)
    return enable


def _keep_signers(state: Fork, height: int) -> None:
    """Of the next block but one on; forget the sets that no vote to come can be of."""
    past = [key for key, _ in state.scan(keys.SIGNERS) if keys.index_time(key, keys.SIGNERS) <= height]
    for key in past[:-1]:
        state.delete(key)
    members = sorted(each.consensus_key for each in seats(state) if holds(each))
    state.put(keys.signers(height + DELAY_BLOCKS), canonical(votes_pb2.SigningSet(consensus_keys=members)))
