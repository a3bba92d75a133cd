"""Network place: how a node shows a validator that it is near, and what the bounds on the ledger say to a reader.

    validator: greeting(commitment to a seed) -> node: hello(commitment to a secret, FALCON)
    -> ROUNDS x (challenge made of the seed -> HMAC under the secret) -> validator opens the seed, node opens the secret
    -> the least of the measured times is an upper bound on its distance

A node can seem farther than it is, never nearer, unless it gives the secret to a helper. A relay has no secret to
answer with until the rounds are over: the node opens it only to who asked the validator's own challenges, all of them.
Reasons, and who can lie about what: docs/decisions/0062-network-place.md.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from hypermesh import falcon
from hypermesh.digests import digest, preimage, u32
from hypermesh.v1 import votes_pb2

ROUNDS: Final = 12
SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 32
"""And of the seed."""
ANSWER_BYTES: Final = 32
VALIDATOR_BYTES: Final = 20
LONGEST_US: Final = 5_000_000
"""Who takes longer to answer isn't measured: light needs 0.14 s around the earth."""
MEASURED_AGAIN: Final = 5
"""Epochs after which a bound is worth measuring anew."""
FRESH_EPOCHS: Final = 12
"""Epochs for which a bound counts after its own: a node may move."""
PLACED: Final = 3
"""Fresh bounds of different validators that a place takes."""
_METRES_PER_US: Final = 150
"""Half of what light goes in vacuum (299.8 m), rounded up: there and back."""


class PlaceUnproven(Exception):
    """What a node showed is not what it must; the message says which part."""


@dataclass(frozen=True, slots=True)
class Round:
    """One challenge of a session, the answer to it, and how long that took."""

    challenge: bytes
    answer: bytes
    microseconds: int


def seed_commitment(seed: bytes) -> bytes:
    """What a validator says of its challenges before the rounds, and the node signs: the session's nonce; 32 bytes."""
    return digest("place/seed", seed)


def challenges(seed: bytes) -> list[bytes]:
    """One for each round, 32 bytes each; nobody can tell them without the seed."""
    return [hmac.digest(seed, preimage("place/challenge", u32(number)), "sha256") for number in range(ROUNDS)]


def asked_rightly(nonce: bytes, seed: bytes, asked: Sequence[bytes]) -> bool:
    """Whether who greeted with this nonce, and nobody in between, chose what was asked."""
    return len(seed) == NONCE_BYTES and seed_commitment(seed) == nonce and list(asked) == challenges(seed)


def commitment(secret: bytes) -> bytes:
    """What a node says of its secret before the rounds; 32 bytes."""
    return digest("place/secret", secret)


def sign_session(secret_key: bytes, chain_id: str, validator: bytes, nonce: bytes, committed: bytes) -> bytes:
    """The node's FALCON signature that begins a session. Raises falcon.KeyInvalid."""
    return falcon.sign(secret_key, "place/session", chain_id.encode(), validator, nonce, committed)


def session_signed(
    public: bytes, signature: bytes, chain_id: str, validator: bytes, nonce: bytes, committed: bytes
) -> bool:
    """Whether `sign_session` of this node made it for this session."""
    return falcon.verify(public, signature, "place/session", chain_id.encode(), validator, nonce, committed)


def answer(secret: bytes, number: int, challenge: bytes) -> bytes:
    """To the challenge of round `number`, 32 bytes; all that happens between hearing and speaking."""
    return hmac.digest(secret, preimage("place/answer", u32(number), challenge), "sha256")


def least_us(committed: bytes, secret: bytes, rounds: Sequence[Round]) -> int:
    """The bound that a session shows, at least 1 microsecond. Raises PlaceUnproven unless all of it is right."""
    if len(rounds) != ROUNDS:
        raise PlaceUnproven(f"{len(rounds)} rounds, not {ROUNDS}")
    if len(secret) != SECRET_BYTES or commitment(secret) != committed:
        raise PlaceUnproven("the secret is not the one committed to")
    for number, each in enumerate(rounds):
        if not hmac.compare_digest(answer(secret, number, each.challenge), each.answer):
            raise PlaceUnproven(f"the answer of round {number} is not made with the secret")
    least = max(1, min(each.microseconds for each in rounds))
    if least > LONGEST_US:
        raise PlaceUnproven(f"no answer within {LONGEST_US} us")
    return least


def fresh(
    record: votes_pb2.PlaceRecord, validators: Collection[bytes], epoch: int
) -> list[votes_pb2.PlaceRecord.Bound]:
    """Bounds that still count, of those who are validators now (addresses), the smallest first."""
    counted = [b for b in record.bounds if b.validator in validators and b.epoch + FRESH_EPOCHS >= epoch]
    return sorted(counted, key=lambda bound: (bound.microseconds, bound.validator))


def believed_us(record: votes_pb2.PlaceRecord, validators: Collection[bytes], epoch: int) -> int | None:
    """A round trip that holds for at least one honest validator, if less than a third of them lie; None: not placed.

    That many could tell too small ones for a friend; the next larger bound is an honest one's, or larger than one.
    """
    counted, liars = fresh(record, validators, epoch), (len(validators) - 1) // 3
    if len(counted) < max(PLACED, liars + 1):
        return None
    return counted[liars].microseconds


def farthest_km(microseconds: int) -> int:
    """How far away who answered within that time can be at most, rounded up."""
    return -(-microseconds * _METRES_PER_US // 1000)
