"""Challenges: for one key, for 60 seconds, once; and no memory for what nobody answers."""

from __future__ import annotations

import pytest

from hypermesh_trustchain import challenges
from hypermesh_trustchain.challenges import LIFETIME_MS, Challenges
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

KEY, OTHER = b"k" * 32, b"o" * 32
START = 10_000_000


def answer(subject: Challenges, nonce: bytes, key: bytes, now: int) -> None:
    """Checked and, the proofs between being right, used."""
    subject.check(nonce, key, now)
    subject.use(nonce, now)


def refused(subject: Challenges, nonce: bytes, key: bytes = KEY, now: int = START) -> Reason:
    with pytest.raises(EnrolmentRefused) as caught:
        answer(subject, nonce, key, now)
    return caught.value.reason


def test_good_once_within_its_time() -> None:
    subject = Challenges()
    nonce = subject.make(KEY, START)
    assert len(nonce) == 32
    answer(subject, nonce, KEY, START + LIFETIME_MS - 1)
    assert refused(subject, nonce, now=START + LIFETIME_MS - 1) is Reason.CHALLENGE_USED


def test_expires() -> None:
    subject = Challenges()
    assert refused(subject, subject.make(KEY, START), now=START + LIFETIME_MS) is Reason.CHALLENGE_EXPIRED


def test_a_used_nonce_never_becomes_good_again() -> None:
    """It is forgotten only when its time has passed anyway."""
    subject = Challenges()
    nonce = subject.make(KEY, START)
    answer(subject, nonce, KEY, START + 10)
    for later in range(START + 10, START + 3 * LIFETIME_MS, 7_000):
        answer(subject, subject.make(OTHER, later), OTHER, later)
        assert refused(subject, nonce, now=later) in (Reason.CHALLENGE_USED, Reason.CHALLENGE_EXPIRED)


def test_belongs_to_key_and_process() -> None:
    subject = Challenges()
    nonce = subject.make(KEY, START)
    assert refused(subject, nonce, key=OTHER) is Reason.CHALLENGE_UNKNOWN
    assert refused(Challenges(), nonce) is Reason.CHALLENGE_UNKNOWN


@pytest.mark.parametrize("bit", range(0, 256, 5))
def test_no_bit_can_be_changed(bit: int) -> None:
    subject = Challenges()
    nonce = bytearray(subject.make(KEY, START))
    nonce[bit // 8] ^= 1 << bit % 8
    assert refused(subject, bytes(nonce)) is Reason.CHALLENGE_UNKNOWN


@pytest.mark.parametrize("length", [0, 1, 16, 31, 33])
def test_lengths(length: int) -> None:
    assert refused(Challenges(), bytes(length)) is Reason.CHALLENGE_UNKNOWN


def test_answers_without_proof_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds only a challenge can check it as often as he likes: honest ones still get through."""
    monkeypatch.setattr(challenges, "MAX_ANSWERED", 10)
    subject = Challenges()
    nonce = subject.make(KEY, START)
    for _ in range(100):
        subject.check(subject.make(OTHER, START), OTHER, START)
        subject.check(nonce, KEY, START)
    answer(subject, nonce, KEY, START)


def test_of_two_answers_at_once_one_is_used() -> None:
    subject = Challenges()
    nonce = subject.make(KEY, START)
    subject.check(nonce, KEY, START)
    subject.check(nonce, KEY, START)
    subject.use(nonce, START)
    with pytest.raises(EnrolmentRefused) as caught:
        subject.use(nonce, START)
    assert caught.value.reason is Reason.CHALLENGE_USED


def test_a_flood_of_answers_is_bounded_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "MAX_ANSWERED", 10)
    subject = Challenges()
    for _ in range(10):
        answer(subject, subject.make(KEY, START), KEY, START)
    assert refused(subject, subject.make(KEY, START)) is Reason.BUSY
    later = START + LIFETIME_MS
    answer(subject, subject.make(KEY, later), KEY, later)
