"""The compiled reader of envelopes beside the one in Python: the same is read by both, and all that is good."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hypermesh import falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_ledger.decoding import decode
from hypermesh_ledger.delimited import delimited
from hypermesh_native import read_envelope

KEY = falcon.generate()
REFS = proofs_pb2.TicketRefs(space=bytes(32), stake=b"s" * 32, work=b"w" * 32, time=b"t" * 32)
SHORT = proofs_pb2.TicketRefs(space=b"short", work=b"w" * 32)


def release(number: int) -> ledger_pb2.Operation:
    release = ledger_pb2.Release(allocation_id=number.to_bytes(32, "big"))
    return ledger_pb2.Operation(chain_id="hypermesh", valid_until_ms=number + 1, release=release)


def leave() -> ledger_pb2.Operation:
    return ledger_pb2.Operation(chain_id="hypermesh", valid_until_ms=9, leave_validator=ledger_pb2.LeaveValidator())


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    """With tickets and without, alone and in batches of several depths."""
    pair = KEY.public, KEY.secret
    alone = [operations.build(release(1), *pair, REFS), operations.build(leave(), *pair)]
    few = operations.build_batch([(release(number), REFS) for number in range(3)], *pair)
    many = operations.build_batch([(release(number), REFS) for number in range(100)], *pair)
    return [*alone, *few, *many[::11], *operations.build_batch([(leave(), None), (release(0), REFS)], *pair)]


def reference(raw: bytes) -> operations.Read | Reason:
    """As Python reads it."""
    try:
        return operations.decode(raw).read
    except Refused as refusal:
        return refusal.reason


def compiled(raw: bytes) -> operations.Read | Reason:
    """As the ledger reads it."""
    try:
        return decode(raw).read
    except Refused as refusal:
        return refusal.reason


def test_what_is_good_is_read_by_the_compiled_one(good: list[bytes]) -> None:
    for raw in good:
        read = read_envelope(raw)
        assert read is not None
        assert operations.Read(*read) == reference(raw)


def test_a_decoded_transaction_is_the_same_by_both(good: list[bytes]) -> None:
    for raw in good:
        ours, theirs = decode(raw), operations.decode(raw)
        assert (ours.read, ours.operation, ours.kind, ours.raw) == (theirs.read, theirs.operation, theirs.kind, raw)
        assert ours.envelope == theirs.envelope


def spoilt(raw: bytes, chance: random.Random) -> Iterator[bytes]:
    """Bits, bytes, lengths and ends of one that is good."""
    for _ in range(60):
        at = chance.randrange(len(raw))
        yield raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]
        yield raw[:at] + raw[at + 1 :]
        yield raw[:at] + chance.randbytes(1) + raw[at:]
        yield raw[:at]
        yield raw + chance.randbytes(chance.randrange(1, 5))


def test_whatever_is_spoilt_has_the_same_verdict(good: list[bytes]) -> None:
    chance = random.Random(7)
    verdicts = []
    for raw in good:
        for each in spoilt(raw, chance):
            verdict = compiled(each)
            assert verdict == reference(each), each.hex()
            verdicts.append(verdict)
    assert {Reason.Malformed, Reason.NotCanonical, Reason.BadSignature} <= set(verdicts)
    assert any(isinstance(verdict, operations.Read) for verdict in verdicts)  # a flipped bit of a signature, say


def field(number: int, value: bytes) -> bytes:
    """A field of bytes, whatever is in them."""
    return bytes([number << 3 | 2]) + delimited(value)


OPERATION = field(1, operations.canonical(release(1)))
NAMED = operations.canonical(REFS)
TICKETS = field(2, NAMED)
SIGNER = field(3, falcon.key_id(KEY.public))
ALGORITHM = b"\x20\x01"
SIGNATURE = field(5, bytes(1280))
SIBLING = field(6, bytes(32))


def envelope(*more: bytes, tickets: bytes = TICKETS, algorithm: bytes = ALGORITHM) -> bytes:
    """In the right order, with what is to be strange about it."""
    return b"".join((OPERATION, tickets, SIGNER, algorithm, SIGNATURE, *more))


STRANGE = {
    "good": (envelope(), None),
    "another order": (TICKETS + OPERATION + SIGNER + ALGORITHM + SIGNATURE, Reason.NotCanonical),
    "a field twice": (OPERATION + envelope(), Reason.NotCanonical),
    "tickets in two parts": (envelope(tickets=field(2, NAMED[:68]) + field(2, NAMED[68:])), Reason.NotCanonical),
    "a number longer than it need be": (envelope(algorithm=b"\x20\x81\x00"), Reason.NotCanonical),
    "what is the default": (envelope(b"\x38\x00"), Reason.NotCanonical),
    "a field of tomorrow": (envelope(b"\x40\x01"), Reason.NotCanonical),
    "a field of tomorrow in the tickets": (envelope(tickets=field(2, NAMED + b"\x28\x01")), Reason.NotCanonical),
    "another algorithm": (envelope(algorithm=b"\x20\x02"), Reason.UnsupportedAlgorithm),
    "a negative algorithm": (envelope(algorithm=b"\x20" + b"\xff" * 9 + b"\x01"), Reason.UnsupportedAlgorithm),
    "empty tickets": (envelope(tickets=field(2, b"")), Reason.SpaceTicketMissing),
    "short tickets": (envelope(tickets=field(2, operations.canonical(SHORT))), Reason.SpaceTicketMissing),
    "a place in no batch": (envelope(b"\x38\x01"), Reason.Malformed),
    "a place outside of its batch": (envelope(SIBLING, b"\x38\x02"), Reason.Malformed),
    "a batch too deep": (envelope(SIBLING * 13, b"\x38\x01"), Reason.Malformed),
    "nothing": (b"", Reason.UnsupportedAlgorithm),
    "too much": (bytes(operations.MAX_ENVELOPE_BYTES + 1), Reason.TooLarge),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_strange_is_refused_for_the_same_reason(name: str) -> None:
    raw, reason = STRANGE[name]
    verdict = compiled(raw)
    assert verdict == reference(raw)
    assert verdict is reason if reason is not None else isinstance(verdict, operations.Read)
