"""Transactions have one encoding, and everything else is refused before anybody looks at what it says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2

KEY = falcon.generate()
REFS = proofs_pb2.TicketRefs(space=b"s" * 32, stake=b"t" * 32, work=b"w" * 32, time=b"m" * 32)
OPERATION = ledger_pb2.Operation(chain_id="c", valid_until_ms=5, release=ledger_pb2.Release(allocation_id=b"a" * 32))
GOOD = operations.build(OPERATION, KEY.public, KEY.secret, REFS)


def reason_of(data: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        operations.decode(data)
    assert caught.value.message
    return caught.value.reason


def changed(**fields: object) -> bytes:
    envelope = ledger_pb2.Envelope.FromString(GOOD)
    for name, value in fields.items():
        if name == "tickets":
            envelope.tickets.CopyFrom(value)
        else:
            setattr(envelope, name, value)
    return envelope.SerializeToString(deterministic=True)


def test_what_is_built_decodes_and_verifies() -> None:
    decoded = operations.decode(GOOD)
    assert (decoded.kind, decoded.operation) == ("release", OPERATION)
    assert decoded.tx_hash == operations.tx_hash(GOOD)
    parts = operations.signed_parts(decoded.envelope)
    assert falcon.verify(KEY.public, decoded.envelope.signature, operations.SIGNATURE_DOMAIN, *parts)


def test_every_truncation_is_refused() -> None:
    for length in range(len(GOOD)):
        reason_of(GOOD[:length])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    reason_of(noise)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_never_keeps_the_signature_valid(bit: int) -> None:
    flipped = bytearray(GOOD)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        decoded = operations.decode(bytes(flipped))
    except Refused:
        return
    envelope = decoded.envelope
    parts = operations.signed_parts(envelope)
    same_key = envelope.signer == falcon.key_id(KEY.public)
    assert not (same_key and falcon.verify(KEY.public, envelope.signature, operations.SIGNATURE_DOMAIN, *parts))


def test_oversized_is_refused_unparsed() -> None:
    assert reason_of(b"\x0a" + bytes(operations.MAX_ENVELOPE_BYTES)) is Reason.TooLarge


def test_build_refuses_what_nobody_would_accept() -> None:
    big = ledger_pb2.Operation(chain_id="x" * operations.MAX_ENVELOPE_BYTES, enrol_node=ledger_pb2.EnrolNode())
    with pytest.raises(Refused, match="TooLarge"):
        operations.build(big, KEY.public, KEY.secret)


def test_other_encodings_of_the_same_message_are_refused() -> None:
    outer = ledger_pb2.Envelope.FromString(GOOD)
    unknown = GOOD + b"\x7a\x01x"  # field 15
    twice = GOOD + b"\x20\x01"  # algorithm again
    inner_unknown = changed(operation=outer.operation + b"\xf2\x01\x01x")
    padded_varint = changed(operation=outer.operation.replace(b"\x10\x05", b"\x10\x85\x00"))
    for data in (unknown, twice, inner_unknown, padded_varint):
        assert reason_of(data) is Reason.NotCanonical


def test_form_is_checked_field_by_field() -> None:
    assert reason_of(changed(algorithm=0)) is Reason.UnsupportedAlgorithm
    assert reason_of(changed(algorithm=7)) is Reason.UnsupportedAlgorithm
    assert reason_of(changed(signer=b"x" * 31)) is Reason.Malformed
    assert reason_of(changed(signature=b"x" * 1279)) is Reason.BadSignature
    assert reason_of(changed(operation=b"\xff")) is Reason.Malformed
    nothing = ledger_pb2.Operation(chain_id="c").SerializeToString(deterministic=True)
    assert reason_of(changed(operation=nothing)) is Reason.Malformed
    winning = ledger_pb2.Operation(prove=ledger_pb2.Prove(epoch=1)).SerializeToString(deterministic=True)
    assert reason_of(changed(operation=winning)) is Reason.Malformed


@pytest.mark.parametrize("name", ["space", "stake", "work", "time"])
def test_each_ticket_must_be_named(name: str) -> None:
    for value in (b"", b"x" * 31, b"x" * 33):
        refs = proofs_pb2.TicketRefs()
        refs.CopyFrom(REFS)
        setattr(refs, name, value)
        assert reason_of(changed(tickets=refs)) == f"{name.capitalize()}TicketMissing"


def test_ids_depend_on_every_part() -> None:
    first = operations.asset_id(b"n" * 32, 1, "h")
    assert len({first, operations.asset_id(b"m" * 32, 1, "h"), operations.asset_id(b"n" * 32, 2, "h")}) == 3
    assert operations.allocation_id("ab", "c") != operations.allocation_id("a", "bc")


def test_every_reason_has_a_remedy() -> None:
    for reason in Reason:
        assert reason.remedy.endswith("."), reason
        assert Reason(reason.value) is reason


def test_what_follows_from_an_operation_is_found_once() -> None:
    decoded, asked = operations.decode(GOOD), []

    def find(of: operations.Decoded, *what: object) -> bytes:
        assert of is decoded
        asked.append(what)
        if what == (3,):
            raise Refused(Reason.Malformed, "no")
        return of.tx_hash

    assert decoded.once(find, 1) is decoded.once(find, 1)
    decoded.once(find, 2)
    for _ in range(2):
        with pytest.raises(Refused):
            decoded.once(find, 3)
    assert asked == [(1,), (2,), (3,), (3,)]
