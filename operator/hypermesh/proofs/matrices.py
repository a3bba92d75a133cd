"""The factors of the work product: two n×n int8 matrices per round, as seekable ChaCha20 key stream.

A is stream 0 and Bᵀ (so that a column of B is one run of bytes) stream 1 of the round's key, row by row. A
verifier reads only the rows of the tiles it checks. n is a multiple of 64, so rows begin at block borders.

Source: RFC 8439, section 2.3: 16 bytes of counter (u32, little-endian) and nonce.
"""

from __future__ import annotations

from enum import IntEnum

_BLOCK = 64


class Factor(IntEnum):
    """Which matrix: its number is the ChaCha20 nonce."""

    LEFT = 0
    RIGHT_TRANSPOSED = 1


def rows(key: bytes, factor: Factor, n: int, first: int, count: int) -> bytes:
    """`count` rows from row `first` of an n×n factor: count · n bytes, each an int8. `key` is 32 bytes.

    ValueError unless n is a multiple of 64, the rows lie inside, and the whole fits ChaCha20's 2³² blocks.
    """
    if n % _BLOCK or not 0 <= first <= first + count <= n or n * n > _BLOCK << 32:
        raise ValueError(f"rows {first}+{count} of a factor with n={n}")
    from cryptography.hazmat.primitives.ciphers import Cipher  # 7 MB that who only names tickets never needs
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    counter = first * n // _BLOCK
    nonce = counter.to_bytes(4, "little") + factor.to_bytes(12, "little")
    encryptor = Cipher(ChaCha20(key, nonce), mode=None).encryptor()
    return encryptor.update(bytes(count * n))
