"""Challenges, samples and tickets: fixed forever by known answers, and different wherever any input differs."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from hypermesh.digests import digest
from hypermesh.proofs import (
    challenge,
    plot_id,
    space_challenge,
    space_ticket,
    stake_ticket_hash,
    ticket_hash,
    time_ticket,
    work_key,
    work_samples,
    work_ticket,
)
from hypermesh.proofs.challenges import next_work_key, time_seed
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1.proofs_pb2 import PROOF_KIND_SPACE, PROOF_KIND_WORK, ProofParameters, TimeProof
from hypermesh.v1.trust_pb2 import ROLE_NODE, ROLE_OPERATOR, Certificate

NODE, DEVICE, C = b"\1" * 32, b"\2" * 32, b"\3" * 32


def test_a_challenge_is_its_digest() -> None:
    assert challenge("chain", b"beacon", NODE, 5) == digest("challenge", b"chain", b"beacon", NODE, bytes(7) + b"\5")
    assert challenge("chain", b"beacon", NODE, 5).hex() == (
        "da73f18aaa50f01e4c951ccf9083f6165642c0addfe28fd0fc7c0138d6aa0579"
    )


def test_every_input_changes_the_challenge() -> None:
    base = ("chain", b"beacon", NODE, 5)
    others = [("chain2", *base[1:]), ("chain", b"beacon2", NODE, 5), ("chain", b"beacon", DEVICE, 5), (*base[:3], 6)]
    assert len({challenge(*one) for one in [base, *others]}) == 5


def test_what_is_asked_for_one_proof_answers_no_other() -> None:
    asked = [plot_id(C), space_challenge(C, 0), space_challenge(C, 1), work_key(C, C, DEMO), time_seed(C)]
    assert len({*asked, next_work_key(C, C), C}) == 7


def test_the_shape_of_the_work_is_part_of_its_key() -> None:
    keys = {work_key(C, DEVICE, DEMO), work_key(C, NODE, DEMO), work_key(NODE, DEVICE, DEMO)}
    for name in ("work_n", "work_tile", "work_rounds"):
        other = ProofParameters()
        other.CopyFrom(DEMO)
        setattr(other, name, getattr(other, name) * 2)
        keys.add(work_key(C, DEVICE, other))
    assert len(keys) == 6


def test_samples_are_determined_by_seed_device_and_root() -> None:
    base = work_samples(b"s", DEVICE, C, DEMO)
    assert base == work_samples(b"s", DEVICE, C, DEMO)
    assert len(base) == DEMO.work_samples
    assert base not in (
        work_samples(b"t", DEVICE, C, DEMO),
        work_samples(b"s", NODE, C, DEMO),
        work_samples(b"s", DEVICE, NODE, DEMO),
    )


def test_samples_cover_all_rounds_and_tiles_evenly(small: ProofParameters) -> None:
    """12,288 draws over 3 rounds × 64 tiles: each is expected 64 times, and 25 … 120 is ± 5 standard deviations."""
    seeds = (index.to_bytes(4, "big") for index in range(1024))
    drawn = Counter(itertools.chain.from_iterable(work_samples(seed, DEVICE, C, small) for seed in seeds))
    assert set(drawn) == set(itertools.product(range(3), range(64)))
    assert all(24 <= count <= 120 for count in drawn.values())


def test_tickets_bind_kind_subject_epoch_and_content() -> None:
    proof = TimeProof(iterations=9, output=bytes(200))
    certificate = Certificate(body=b"body", signature=b"signature")
    tickets = [
        space_ticket(NODE, 1, C),
        space_ticket(NODE, 2, C),
        space_ticket(DEVICE, 1, C),
        space_ticket(NODE, 1, NODE),
        work_ticket(NODE, 1, C, DEVICE),
        work_ticket(NODE, 1, C, NODE),
        time_ticket(NODE, 1, C, proof),
        time_ticket(NODE, 1, C, TimeProof(iterations=8, output=bytes(200))),
        time_ticket(NODE, 1, C, TimeProof(iterations=9, output=b"\1" + bytes(199))),
        stake_ticket_hash(NODE, ROLE_NODE, certificate, 1),
        stake_ticket_hash(NODE, ROLE_OPERATOR, certificate, 1),
        stake_ticket_hash(DEVICE, ROLE_NODE, certificate, 1),
        stake_ticket_hash(NODE, ROLE_NODE, certificate, 2),
        stake_ticket_hash(NODE, ROLE_NODE, Certificate(body=b"other", signature=b"signature"), 1),
    ]
    assert len(set(tickets)) == len(tickets)
    assert all(len(ticket) == 32 for ticket in tickets)


def test_malleable_bytes_are_not_part_of_a_ticket() -> None:
    one, two = (TimeProof(iterations=9, output=bytes(100) + tail * 100) for tail in (b"\0", b"\1"))
    assert time_ticket(NODE, 1, C, one) == time_ticket(NODE, 1, C, two)
    signed = [Certificate(body=b"body", signature=signature) for signature in (b"a", b"b")]
    assert stake_ticket_hash(NODE, ROLE_NODE, signed[0], 1) == stake_ticket_hash(NODE, ROLE_NODE, signed[1], 1)


def test_known_tickets() -> None:
    assert ticket_hash(PROOF_KIND_SPACE, NODE, 5, C) == digest("ticket/space", NODE, bytes(7) + b"\5", C)
    assert ticket_hash(PROOF_KIND_WORK, DEVICE, 5, C, C).hex() == (
        "ce4a1228eaf846641e512bcf90ee0c4618f361434062a31fe08926cfc3e4bdf9"
    )


def test_there_is_no_ticket_without_a_kind() -> None:
    with pytest.raises(KeyError):
        ticket_hash(0, NODE, 1)  # type: ignore[arg-type]
