"""FALCON-1024 signatures with any s1 and s2: for a chosen message there is a key that they are one of.

    s1 = c - s2 h mod q with s2 = 1  =>  h = c - s1

so that norms at the bound, and encodings that no signer makes, can be shown to a
verifier. Source: FALCON 1.2, chapter 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isqrt

N = 1024
Q = 12289
BOUND = 70265242
"""Largest squared norm of (s1, s2) that is accepted: table 3.3."""
BODY = 1280 - 41
"""Bytes of encoded s2, padding included."""


def hash_to_point(nonce: bytes, message: bytes) -> list[int]:
    """c of a message: 1024 numbers below q."""
    stream, point = hashlib.shake_256(nonce + message).digest(8 * N), []
    for at in range(0, len(stream), 2):
        word = int.from_bytes(stream[at : at + 2], "big")
        if word < 5 * Q:
            point.append(word % Q)
    return point[:N]


def encode_key(h: Sequence[int]) -> bytes:
    """Also of numbers that are not below q, up to 14 bits."""
    number = 0
    for each in h:
        number = number << 14 | each
    return b"\x0a" + number.to_bytes(14 * N // 8, "big")


def bits_of(value: int, sign: bool | None = None) -> str:
    """Of one number of s2; sign: the sign's bit, where it is not the number's own."""
    negative, size = value < 0 if sign is None else sign, abs(value)
    return f"{negative:d}{size % 128:07b}" + "0" * (size // 128) + "1"


def encode(bits: str) -> bytes:
    """s2's bits, padded with zeros; longer ones are cut."""
    return int(bits.ljust(8 * BODY, "0")[: 8 * BODY], 2).to_bytes(BODY, "big")


def decode(body: bytes) -> list[int]:
    """s2 of an honest signature."""
    bits, at, values = f"{int.from_bytes(body, 'big'):0{8 * BODY}b}", 0, []
    for _ in range(N):
        sign, low = bits[at] == "1", int(bits[at + 1 : at + 8], 2)
        end = bits.index("1", at + 8)
        values.append((-1 if sign else 1) * (low + 128 * (end - at - 8)))
        at = end + 1
    return values


def signature(nonce: bytes, bits: str) -> bytes:
    """1280 bytes."""
    return b"\x3a" + nonce + encode(bits)


def with_norm(squared: int) -> list[int]:
    """1024 numbers of at most q / 2 whose squares add up to this: the largest first, and what is left in small ones."""
    found: list[int] = []
    while squared and len(found) < N:
        found.append(min(isqrt(squared), Q // 2))
        squared -= found[-1] ** 2
    assert not squared
    return found + [0] * (N - len(found))


def key_for(nonce: bytes, message: bytes, s1: Sequence[int]) -> bytes:
    """The key under which (s1, s2 = 1) is this message's signature, were it short enough."""
    return encode_key([(c - each) % Q for c, each in zip(hash_to_point(nonce, message), s1, strict=True)])
