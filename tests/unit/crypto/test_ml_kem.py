"""ML-KEM-1024 of liboqs against that of the `cryptography` package's library, both ways; the two share no code.

Who encapsulates and who decapsulates may be different programs, so the two must agree on every secret, and also on the
secret of a ciphertext that was tampered with (implicit rejection, FIPS 203, 6.3): it depends on the secret key alone.
"""

from __future__ import annotations

import os

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey, MLKEM1024PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import falcon

NAME = "ML-KEM-1024"
SEED_BYTES, PUBLIC_BYTES, CIPHERTEXT_BYTES = 64, 1568, 1568
seeds = st.binary(min_size=SEED_BYTES, max_size=SEED_BYTES)


def ours_from(seed: bytes) -> tuple[bytes, bytes]:
    """(public, secret) of liboqs for FIPS 203's seed d || z."""
    with falcon.native().KeyEncapsulation(NAME) as kem:
        return kem.generate_keypair_seed(seed), kem.export_secret_key()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """(ciphertext, secret) by liboqs."""
    with falcon.native().KeyEncapsulation(NAME) as kem:
        ciphertext, secret = kem.encap_secret(public)
        return ciphertext, secret


def decapsulate(key: bytes, ciphertext: bytes) -> bytes:
    with falcon.native().KeyEncapsulation(NAME, key) as kem:
        return bytes(kem.decap_secret(ciphertext))


def test_we_encapsulate_and_they_decapsulate() -> None:
    for _ in range(20):
        key = MLKEM1024PrivateKey.generate()
        ciphertext, secret = encapsulate(key.public_key().public_bytes_raw())
        assert key.decapsulate(ciphertext) == secret
        assert len(ciphertext) == CIPHERTEXT_BYTES


def test_they_encapsulate_and_we_decapsulate() -> None:
    with falcon.native().KeyEncapsulation(NAME) as kem:
        public = kem.generate_keypair()
        for _ in range(20):
            secret, ciphertext = MLKEM1024PublicKey.from_public_bytes(public).encapsulate()
            assert kem.decap_secret(ciphertext) == secret


@settings(max_examples=30, deadline=None)
@given(seeds, st.binary(min_size=CIPHERTEXT_BYTES, max_size=CIPHERTEXT_BYTES))
def test_the_same_seed_gives_the_same_key_and_the_same_rejection(seed: bytes, noise: bytes) -> None:
    public, secret_key = ours_from(seed)
    theirs = MLKEM1024PrivateKey.from_seed_bytes(seed)
    assert theirs.public_key().public_bytes_raw() == public
    ciphertext, secret = encapsulate(public)
    assert theirs.decapsulate(ciphertext) == decapsulate(secret_key, ciphertext) == secret
    for wrong in (noise, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), bytes(CIPHERTEXT_BYTES)):
        assert theirs.decapsulate(wrong) == decapsulate(secret_key, wrong) != secret


def test_a_public_key_out_of_range_is_no_key() -> None:
    """FIPS 203, 7.2: coefficients of q or more are refused before anything is encapsulated to them."""
    with pytest.raises((ValueError, UnsupportedAlgorithm)):
        MLKEM1024PublicKey.from_public_bytes(b"\xff" * PUBLIC_BYTES).encapsulate()
    with pytest.raises((ValueError, RuntimeError)):
        encapsulate(b"\xff" * PUBLIC_BYTES)
    good = MLKEM1024PrivateKey.from_seed_bytes(os.urandom(SEED_BYTES)).public_key().public_bytes_raw()
    assert len(encapsulate(good)[1]) == 32
