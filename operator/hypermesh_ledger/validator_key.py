"""The validator's ML-DSA-65 key in the packed form that CometBFT reads (FIPS 204; 4032 bytes).

The operating system's randomness gives a seed; OpenSSL derives the public key from it. CometBFT wants the private key
expanded, which OpenSSL does not hand out, so FIPS 204's algorithm 6 is written out here and checked against OpenSSL's
public key each time. It runs once in the life of a validator.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from hypermesh_clients.files import write_durably
from hypermesh_ledger.errors import HomeMismatch

_Q: Final = 8380417
_N: Final = 256
_ROWS: Final = 6
_COLUMNS: Final = 5
_ETA: Final = 4
_DROPPED_BITS: Final = 13
_ZETA: Final = 1753

SEED: Final = "seed"
"""Field of the key file that CometBFT does not read: who joins shows by a signature that it holds the key."""

Polynomial = list[int]


def expand(seed: bytes) -> tuple[bytes, bytes]:
    """(public key of 1952 bytes, packed private key of 4032 bytes) of a 32-byte seed: ML-DSA.KeyGen_internal."""
    material = hashlib.shake_256(seed + bytes([_ROWS, _COLUMNS])).digest(128)
    rho, rho_prime, key = material[:32], material[32:96], material[96:]
    secrets = [_bounded(rho_prime, index) for index in range(_ROWS + _COLUMNS)]
    s1, s2 = secrets[:_COLUMNS], secrets[_COLUMNS:]
    transformed = [_transform(each) for each in s1]
    high, low = [], []
    for row in range(_ROWS):
        total = [0] * _N
        for column in range(_COLUMNS):
            factor = _uniform(rho + bytes([column, row]))
            total = [(a + b * c) % _Q for a, b, c in zip(total, factor, transformed[column], strict=True)]
        t = [(a + b) % _Q for a, b in zip(_transform_back(total), s2[row], strict=True)]
        parts = [_split(coefficient) for coefficient in t]
        high.append([part[0] for part in parts])
        low.append([part[1] for part in parts])
    public = rho + b"".join(_pack(each, 10) for each in high)
    packed_secrets = b"".join(_pack([_ETA - c for c in each], 4) for each in secrets)
    middle = 1 << _DROPPED_BITS - 1
    packed_low = b"".join(_pack([middle - c for c in each], 13) for each in low)
    digest = hashlib.shake_256(public).digest(64)
    return public, rho + key + digest + packed_secrets + packed_low


def write_validator_key(path: Path) -> None:
    """Make a new key and write it as CometBFT's priv_validator_key.json, readable by the owner only.

    Raises FileExistsError: a validator's key is never replaced.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    private = MLDSA65PrivateKey.generate()
    public, packed = expand(private.private_bytes_raw())
    if public != private.public_key().public_bytes_raw():
        raise RuntimeError("ML-DSA-65 key expansion disagrees with OpenSSL: do not use this build")
    document = {
        "address": hashlib.sha256(public).digest()[:20].hex().upper(),
        "pub_key": {"type": "cometbft/PubKeyMlDsa65", "value": base64.b64encode(public).decode()},
        "priv_key": {"type": "cometbft/PrivKeyMlDsa65", "value": base64.b64encode(packed).decode()},
        SEED: base64.b64encode(private.private_bytes_raw()).decode(),
    }
    write_durably(path, json.dumps(document).encode(), 0o600)


def public_key(path: Path) -> bytes:
    """The 1952 bytes in that file."""
    return base64.b64decode(json.loads(path.read_text())["pub_key"]["value"], validate=True)


def signer(path: Path) -> tuple[bytes, MLDSA65PrivateKey]:
    """The public key in that file, and its private one. Raises HomeMismatch for a damaged file, or no seed."""
    try:
        return _signer(path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeMismatch(f"{path} is damaged ({type(error).__name__}). Restore it from a backup.") from None


def _signer(path: Path) -> tuple[bytes, MLDSA65PrivateKey]:
    document = json.loads(path.read_text())
    if SEED not in document:
        raise HomeMismatch(
            f"{path} was written by a version that kept no seed, so this validator can't show that it holds its key: "
            "it can go on alone, without --p2p-address, but not take in others."
        )
    private = MLDSA65PrivateKey.from_seed_bytes(base64.b64decode(document[SEED], validate=True))
    public = base64.b64decode(document["pub_key"]["value"], validate=True)
    if private.public_key().public_bytes_raw() != public:
        raise ValueError("seed and public key are no pair")
    return public, private


def _uniform(seed: bytes) -> Polynomial:
    """RejNTTPoly: 256 numbers below q, already transformed."""
    stream = hashlib.shake_128(seed).digest(3 * 1024)
    numbers = (int.from_bytes(stream[i : i + 3], "little") & 0x7FFFFF for i in range(0, len(stream), 3))
    return _first(n for n in numbers if n < _Q)


def _bounded(seed: bytes, index: int) -> Polynomial:
    """RejBoundedPoly for eta = 4: 256 numbers from -4 to 4."""
    stream = hashlib.shake_256(seed + index.to_bytes(2, "little")).digest(1024)
    halves = (half for byte in stream for half in (byte & 15, byte >> 4))
    return _first(_ETA - half for half in halves if half < 2 * _ETA + 1)


def _first(numbers: Iterator[int]) -> Polynomial:
    """256 of them; so long a stream is too short with a probability below 2^-128."""
    taken = [number for _, number in zip(range(_N), numbers, strict=False)]
    if len(taken) != _N:
        raise RuntimeError("the stream of an ML-DSA-65 polynomial ended early")
    return taken


_POWERS: Final = [pow(_ZETA, int(f"{i:08b}"[::-1], 2), _Q) for i in range(_N)]


def _transform(polynomial: Polynomial) -> Polynomial:
    """NTT (FIPS 204, algorithm 41)."""
    values, used, length = [c % _Q for c in polynomial], 0, 128
    while length:
        for start in range(0, _N, 2 * length):
            used += 1
            for j in range(start, start + length):
                t = _POWERS[used] * values[j + length] % _Q
                values[j], values[j + length] = (values[j] + t) % _Q, (values[j] - t) % _Q
        length //= 2
    return values


def _transform_back(polynomial: Polynomial) -> Polynomial:
    """Inverse NTT (FIPS 204, algorithm 42)."""
    values, used, length = list(polynomial), _N, 1
    while length < _N:
        for start in range(0, _N, 2 * length):
            used -= 1
            for j in range(start, start + length):
                t = values[j]
                values[j] = (t + values[j + length]) % _Q
                values[j + length] = -_POWERS[used] * (t - values[j + length]) % _Q
        length *= 2
    inverse = pow(_N, -1, _Q)
    return [value * inverse % _Q for value in values]


def _split(coefficient: int) -> tuple[int, int]:
    """Power2Round: (high bits, low bits centred on zero)."""
    low = coefficient % (1 << _DROPPED_BITS)
    if low > 1 << _DROPPED_BITS - 1:
        low -= 1 << _DROPPED_BITS
    return (coefficient - low) >> _DROPPED_BITS, low


def _pack(numbers: Polynomial, bits: int) -> bytes:
    """BitPack: little-endian, `bits` a number."""
    total = 0
    for index, number in enumerate(numbers):
        total |= number << index * bits
    return total.to_bytes(_N * bits // 8, "little")
