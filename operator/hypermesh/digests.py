"""The one hash of the project: SHA-256, separated by domain, unambiguous in its parts.

Everything we hash ourselves (asset ids, challenges, tickets, operations, certificates, Merkle nodes) goes
through `digest`, so that bytes made for one purpose never mean anything for another.

Layout: ``"hypermesh/" domain 0x00 (length: u64 big-endian, part)*``. The framing makes the input injective:
no two different (domain, parts) give the same bytes, as a domain holds no NUL.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

DIGEST_BYTES = 32


def preimage(domain: str, *parts: bytes) -> bytes:
    """The framed bytes that `digest` hashes.

    Raises ValueError for an empty domain or one with a NUL or a non-ASCII character (a programming error).
    """
    framed = [_prefix(domain)]
    for part in parts:
        framed.append(len(part).to_bytes(8, "big"))
        framed.append(part)
    return b"".join(framed)


@lru_cache(256)
def _prefix(domain: str) -> bytes:
    if not domain or "\0" in domain or not domain.isascii():
        raise ValueError(f"digest domain {domain!r}: use a non-empty ASCII name without NUL")
    return b"hypermesh/" + domain.encode("ascii") + b"\0"


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) of the framed parts under `domain`; 32 bytes."""
    return hashlib.sha256(preimage(domain, *parts)).digest()


def u32(value: int) -> bytes:
    """An integer as 4 big-endian bytes; OverflowError outside 0 … 2³² − 1."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """An integer as 8 big-endian bytes; OverflowError outside 0 … 2⁶⁴ − 1."""
    return value.to_bytes(8, "big")
