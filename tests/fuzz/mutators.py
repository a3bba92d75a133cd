"""Mutations without coverage: what the short mode tries, seeded, so that a finding can be repeated."""

from __future__ import annotations

import random

_ODD = (b"\0", b"\xff", b"\x7f", b"\x80", b"9", b"-", b"%", b"\n", b"\xd9\xa3", b"\xff" * 9 + b"\x01", b"9" * 5000)


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """One to four changes: bits, odd bytes, cuts, repeats, and a piece of another input."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(changed) + 1)
        to = min(len(changed), at + chance.randrange(1, 40))
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 2:
                changed[at:at] = chance.choice(_ODD)
            case 3:
                del changed[at:to]
            case 4:
                changed[at:at] = changed[at:to] * chance.randrange(1, 4)
            case 5:
                other = chance.choice(others)
                begin = chance.randrange(len(other) + 1)
                changed[at:to] = other[begin : begin + chance.randrange(1, 80)]
            case _:
                changed[at:to] = chance.randbytes(to - at)
    return bytes(changed)
