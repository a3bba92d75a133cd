"""The ledger's compiled verifier judges as liboqs does: thousands of good, spoilt and crafted signatures and keys.

A difference would let validators of two builds disagree about a block, so none is tolerated in either direction.
"""

from __future__ import annotations

import random
import select
import time
from collections import Counter

import pytest

import hypermesh_native
from hypermesh import falcon
from hypermesh.digests import digest

from . import falcon_crafted as crafted

PART = b"part"
MESSAGE = digest("operation", PART)
NONCE = bytes(range(40))
ONE = [1] + [0] * (crafted.N - 1)
ONE_BITS = "".join(map(crafted.bits_of, ONE))

Case = tuple[bytes, bytes]
"""Public key and signature, over MESSAGE."""


@pytest.fixture(scope="module")
def signers() -> list[falcon.KeyPair]:
    return [falcon.generate() for _ in range(3)]


@pytest.fixture(scope="module")
def good(signers: list[falcon.KeyPair]) -> list[Case]:
    return [(pair.public, falcon.sign(pair.secret, "operation", PART)) for pair in signers for _ in range(8)]


def judged(cases: list[Case]) -> list[bool]:
    """By liboqs, after both roads of ours, call and thread, have said the same."""
    theirs = [falcon.verify(public, signature, "operation", PART) for public, signature in cases]
    assert [hypermesh_native.verify(public, signature, MESSAGE) for public, signature in cases] == theirs
    thread = hypermesh_native.Signatures()
    thread.submit(7, [(public, signature, MESSAGE) for public, signature in cases])
    assert select.select([thread], [], [], 60)[0]
    assert thread.answers() == [(7, bytes(theirs))]
    thread.close()
    return theirs


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


def test_good_signatures_are_good_and_others_are_not(good: list[Case]) -> None:
    assert judged(good) == [True] * len(good)
    swapped = [(public, signature) for (public, _), (_, signature) in zip(good, good[8:] + good[:8], strict=True)]
    assert not any(judged(swapped))
    assert not hypermesh_native.verify(*good[0], MESSAGE[::-1])
    assert not hypermesh_native.verify(*good[0], MESSAGE + b"\0")


def test_single_bits_of_every_field(good: list[Case]) -> None:
    chance = random.Random(1)
    for public, signature in good[::8]:
        s2 = "".join(map(crafted.bits_of, crafted.decode(signature[41:])))
        assert crafted.encode(s2) == signature[41:]
        header_and_nonce = range(41 * 8)
        padding = range(41 * 8 + len(s2), len(signature) * 8)
        within = chance.sample(range(41 * 8, 41 * 8 + len(s2)), 1_000)
        cases = [(public, flipped(signature, bit)) for bit in (*header_and_nonce, *padding, *within)]
        assert not any(judged(cases))


def test_wrong_lengths_and_headers(good: list[Case]) -> None:
    public, signature = good[0]
    cases = [(public, signature[:length]) for length in (0, 1, 40, 41, 42, 666, 1278, 1279)]
    cases += [(public, signature + extra) for extra in (b"\0", b"\1", bytes(182), signature)]
    cases += [(public, bytes([header]) + signature[1:]) for header in range(256) if header != 0x3A]
    cases += [(public[:length], signature) for length in (0, 1, 897, 1792)] + [(public + b"\0", signature)]
    cases += [(bytes([header]) + public[1:], signature) for header in range(256) if header != 0x0A]
    assert not any(judged(cases))


def test_random_bytes() -> None:
    chance = random.Random(2)
    bodies = [chance.randbytes(crafted.BODY) for _ in range(300)] + [bytes(crafted.BODY), b"\xff" * crafted.BODY]
    key = crafted.key_for(NONCE, MESSAGE, ONE)
    assert not any(judged([(key, b"\x3a" + NONCE + body) for body in bodies]))


def test_spoilt_keys(good: list[Case]) -> None:
    chance = random.Random(3)
    public, signature = good[0]
    number = int.from_bytes(public[1:], "big")
    h = [number >> 14 * (crafted.N - 1 - index) & 0x3FFF for index in range(crafted.N)]
    assert crafted.encode_key(h) == public
    cases = [(flipped(public, bit), signature) for bit in chance.sample(range(len(public) * 8), 1_000)]
    for index in (0, 1, 2, 3, 4, 511, crafted.N - 1, *chance.sample(range(crafted.N), 200)):
        for value in (crafted.Q, crafted.Q + 1, 0x3FFF):
            cases.append((crafted.encode_key([*h[:index], value, *h[index + 1 :]]), signature))
        if h[index] + crafted.Q < 1 << 14:  # the same number, written otherwise
            cases.append((crafted.encode_key([*h[:index], h[index] + crafted.Q, *h[index + 1 :]]), signature))
    assert not any(judged(cases))


def test_there_is_one_encoding_of_every_signature(good: list[Case]) -> None:
    """Minus zero, numbers above 2047, too few, too many, and padding that is none: all of else good signatures."""
    said: Counter[bool] = Counter()
    for public, signature in good:
        values = crafted.decode(signature[41:])
        bits = list(map(crafted.bits_of, values))
        again = "".join(bits)
        assert crafted.encode(again) == signature[41:]
        minus_zeros = [index for index, value in enumerate(values) if value == 0]
        bodies = []
        for index in minus_zeros:
            bodies.append("".join([*bits[:index], crafted.bits_of(0, sign=True), *bits[index + 1 :]]))
        for index in (0, 1, 500, crafted.N - 1):
            for value in (
                2047,
                2048,
                2049,
                4096,
                -2047,
                -2048,
                values[index] + 2048,
                -values[index],
                values[index] + 1,
            ):
                bodies.append("".join([*bits[:index], crafted.bits_of(value), *bits[index + 1 :]]))
            bodies.append("".join([*bits[:index], *bits[index + 1 :]]))
            bodies.append("".join([*bits[:index], "0" * 8 + "1", *bits[index:]]))
        bodies += [
            again + "1",
            again + "0" * 7 + "1",
            again + "0" * 8 + "1",
            again.ljust(crafted.BODY * 8 - 1, "0") + "1",
        ]
        others = {crafted.encode(body) for body in bodies} - {signature[41:]}  # a zero's negative is the zero again
        said.update(judged([(public, signature), *((public, signature[:41] + body) for body in sorted(others))]))
    assert said[False] > 1_000
    assert said[True] == len(good)


@pytest.mark.parametrize(
    "squared", [0, 1, 2, 1000, crafted.BOUND - 1, crafted.BOUND, crafted.BOUND + 1, 1 << 31, 1 << 32]
)
def test_the_bound_is_where_the_standard_has_it(squared: int) -> None:
    cases = []
    for around in (-1, 0, 1):
        if squared + around >= 1:  # s2 = 1 has the norm 1
            s1 = crafted.with_norm(squared + around - 1)
            random.Random(squared).shuffle(s1)
            s1 = [each * (-1) ** index for index, each in enumerate(s1)]
            cases.append((crafted.key_for(NONCE, MESSAGE, s1), crafted.signature(NONCE, ONE_BITS)))
            expected = squared + around <= crafted.BOUND
            assert judged(cases[-1:]) == [expected]


def test_norms_beyond_any_word_are_too_long() -> None:
    """A sum that is short again when it has run over 32 bits, of s1 alone and of both."""
    for modulus in (1 << 31, 1 << 32, 1 << 33):
        for rest in (1, 1000, crafted.BOUND):
            key = crafted.key_for(NONCE, MESSAGE, crafted.with_norm(modulus + rest - 1))
            assert judged([(key, crafted.signature(NONCE, ONE_BITS))]) == [False]
    large = [2047] * 40 + [0] * (crafted.N - 40)
    for s1 in (crafted.with_norm(1), crafted.with_norm((1 << 32) - 40 * 2047**2), crafted.with_norm(1 << 32)):
        key = crafted.key_for(NONCE, MESSAGE, s1)
        assert judged([(key, crafted.signature(NONCE, "".join(map(crafted.bits_of, large))))]) == [False]


def test_no_s2_at_all() -> None:
    """s1 is the message's hash then, which is never short; but nothing may fail over it."""
    zeros = crafted.signature(NONCE, crafted.bits_of(0) * crafted.N)
    assert judged([(crafted.encode_key([0] * crafted.N), zeros), (crafted.encode_key(ONE), zeros)]) == [False, False]


def test_answers_come_by_ticket_and_the_bell_rings_for_each(good: list[Case]) -> None:
    thread = hypermesh_native.Signatures()
    public, signature = good[0]
    assert thread.answers() == []
    thread.submit(1, [])
    thread.submit(1 << 40, [(public, signature, MESSAGE), (public, signature[:-1], MESSAGE), (b"", b"", b"")])
    got: dict[int, bytes] = {}
    deadline = time.monotonic() + 60
    while len(got) < 2 and time.monotonic() < deadline:
        assert select.select([thread], [], [], 60)[0]
        got.update(thread.answers())
    assert got == {1: b"", 1 << 40: b"\1\0\0"}
    assert select.select([thread], [], [], 0)[0] == []
    thread.close()
    with pytest.raises(RuntimeError, match="closed"):
        thread.submit(2, [])


def test_closing_waits_for_what_was_submitted(good: list[Case]) -> None:
    thread = hypermesh_native.Signatures()
    for ticket in range(20):
        thread.submit(ticket, [(public, signature, MESSAGE) for public, signature in good])
    thread.close()
    assert thread.answers() == [(ticket, b"\1" * len(good)) for ticket in range(20)]


def test_more_keys_than_are_kept(good: list[Case]) -> None:
    """Those that were dropped are decoded again."""
    thread = hypermesh_native.Signatures()
    signature = crafted.signature(NONCE, ONE_BITS)
    point = crafted.hash_to_point(NONCE, MESSAGE)
    keys = [
        crafted.encode_key([(c - (index == at)) % crafted.Q for at, c in enumerate(point)]) for index in range(1024)
    ]
    checks = [(key, signature, MESSAGE) for key in keys] + [(*good[0], MESSAGE)]
    for ticket in range(3):
        thread.submit(ticket, checks)
    thread.close()
    assert thread.answers() == [(ticket, b"\1" * len(checks)) for ticket in range(3)]
