"""One signature for many: every envelope of a batch stands by itself, and nothing of it can be bent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import batches, falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2

KEY = falcon.generate()
REFS = proofs_pb2.TicketRefs(space=b"s" * 32, stake=b"k" * 32, work=b"w" * 32, time=b"t" * 32)


def release(number: int) -> ledger_pb2.Operation:
    allocation_id = number.to_bytes(32, "big")
    return ledger_pb2.Operation(chain_id="c", valid_until_ms=5, release=ledger_pb2.Release(allocation_id=allocation_id))


def batch(count: int) -> list[bytes]:
    return operations.build_batch([(release(number), REFS) for number in range(count)], KEY.public, KEY.secret)


def verifies(envelope: ledger_pb2.Envelope) -> bool:
    parts = operations.signed_parts(envelope)
    return falcon.verify(KEY.public, envelope.signature, operations.SIGNATURE_DOMAIN, *parts)


FIVE = batch(5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13, 48])
def test_each_stands_by_itself(count: int) -> None:
    built = batch(count)
    assert len({operations.tx_hash(envelope) for envelope in built}) == count
    for number, envelope in enumerate(built):
        decoded = operations.decode(envelope)
        assert decoded.operation == release(number)
        assert verifies(decoded.envelope)


def test_one_alone_is_signed_as_ever() -> None:
    assert not operations.decode(batch(1)[0]).envelope.batch_path


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(FIVE[3]) * 8 - 1))
def test_a_flipped_bit_never_verifies(bit: int) -> None:
    flipped = bytearray(FIVE[3])
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        envelope = operations.decode(bytes(flipped)).envelope
    except Refused:
        return
    assert not (envelope.signer == falcon.key_id(KEY.public) and verifies(envelope))


def test_parts_of_two_members_do_not_mix() -> None:
    first, second = (ledger_pb2.Envelope.FromString(envelope) for envelope in FIVE[:2])
    first.operation = second.operation
    assert not verifies(first)


def test_an_inner_node_is_no_leaf_and_a_batch_is_no_single_operation() -> None:
    envelope = ledger_pb2.Envelope.FromString(FIVE[0])
    del envelope.batch_path[:]
    assert not verifies(envelope)
    deeper = ledger_pb2.Envelope.FromString(FIVE[0])
    deeper.batch_path.append(bytes(32))
    assert not verifies(deeper)


@pytest.mark.parametrize(
    ("index", "path"),
    [(0, [b"x" * 31]), (2, [bytes(32)]), (1, []), (0, [bytes(32)] * 13)],
)
def test_paths_that_cannot_be_are_refused(index: int, path: list[bytes]) -> None:
    envelope = ledger_pb2.Envelope.FromString(FIVE[0])
    del envelope.batch_path[:]
    envelope.batch_path.extend(path)
    envelope.batch_index = index
    with pytest.raises(Refused) as refused:
        operations.decode(operations.canonical(envelope))
    assert refused.value.reason is Reason.Malformed


def test_marks_are_no_ticket_bytes() -> None:
    with pytest.raises(Exception, match="parsing"):
        proofs_pb2.TicketRefs.FromString(batches.MARK)


@pytest.mark.parametrize("count", [0, 1, 4097])
def test_sizes_that_are_no_batch(count: int) -> None:
    with pytest.raises(ValueError, match="batch"):
        batches.tree([bytes([number % 251]) * 32 for number in range(count)])
