"""The native liboqs library is the one we mean: version, algorithms, sizes, NIST known answers bit for bit.

The known answers are SHA-256 digests of NIST-format response files, from liboqs 0.13.0
`tests/KATs/{sig,kem}/kats.json`. They are reproduced here with an AES-256-CTR DRBG (NIST SP 800-90A, as in
the PQC submissions' `rng.c`), loaded into a private copy of the library, so that no other test ever sees a
deterministic random source.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

INSTALLED = Path(__file__).resolve().parents[2] / "build" / "liboqs"
LIBRARY = INSTALLED / "lib" / "liboqs.so"
PADDED_SIGNATURE_BYTES = 1280  # Falcon-1024 padded: FALCON specification 1.2, table 3.3


@pytest.fixture(scope="module")
def oqs() -> ModuleType:
    """liboqs-python on our library; refuses to import it without, because that import would download one."""
    assert LIBRARY.exists(), f"{LIBRARY} is missing: run `python3 hack/liboqs/build.py`"
    os.environ.setdefault("OQS_INSTALL_PATH", str(INSTALLED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that library and binding differ in version
        import oqs
    module: ModuleType = oqs
    return module


class KnownAnswerDrbg:
    """AES-256-CTR DRBG of the NIST PQC submissions, installable as liboqs' source of random bytes."""

    def __init__(self) -> None:
        self.key, self.counter = bytes(32), 0

    def seed(self, entropy: bytes) -> None:
        self.key, self.counter = bytes(32), 0
        self._update(entropy)

    def _block(self) -> bytes:
        self.counter = (self.counter + 1) % (1 << 128)
        encryptor = Cipher(algorithms.AES256(self.key), modes.ECB()).encryptor()
        return encryptor.update(self.counter.to_bytes(16, "big"))

    def _update(self, provided: bytes) -> None:
        fresh = bytes(a ^ b for a, b in zip(b"".join(self._block() for _ in range(3)), provided, strict=True))
        self.key, self.counter = fresh[:32], int.from_bytes(fresh[32:], "big")

    def random(self, count: int) -> bytes:
        out = b"".join(self._block() for _ in range(-(-count // 16)))[:count]
        self._update(bytes(48))
        return out


class PrivateLibrary:
    """A private copy of liboqs.so whose random bytes come from a KnownAnswerDrbg."""

    def __init__(self, folder: Path) -> None:
        self.native = ctypes.CDLL(str(shutil.copy(LIBRARY, folder / "liboqs-known-answers.so")))
        self.drbg = KnownAnswerDrbg()
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)

        def fill(address: int, count: int) -> None:
            ctypes.memmove(address, self.drbg.random(count), count)

        self._keep_alive = callback(fill)
        self.native.OQS_init()
        self.native.OQS_randombytes_custom_algorithm(self._keep_alive)

    def call(self, name: str, *arguments: Any) -> None:
        assert getattr(self.native, name)(*arguments) == 0, f"{name} failed"


@pytest.fixture
def private(tmp_path: Path) -> PrivateLibrary:
    assert LIBRARY.exists(), f"{LIBRARY} is missing: run `python3 hack/liboqs/build.py`"
    return PrivateLibrary(tmp_path)


def field(name: str, value: bytes) -> str:
    return f"{name} = {value.hex().upper()}\n"


def falcon_answer(library: PrivateLibrary, prefix: str, public_size: int, secret_size: int) -> str:
    """One NIST response record of key generation and signing, as liboqs' kat_sig.c prints it."""
    library.drbg.seed(bytes(range(48)))
    seed, message = library.drbg.random(48), library.drbg.random(33)
    library.drbg.seed(seed)
    public, secret = ctypes.create_string_buffer(public_size), ctypes.create_string_buffer(secret_size)
    library.call(f"{prefix}_keypair", public, secret)
    signature, length = ctypes.create_string_buffer(2048), ctypes.c_size_t()
    library.call(f"{prefix}_sign", signature, ctypes.byref(length), message, ctypes.c_size_t(33), secret)
    signed = signature.raw[: length.value] + message
    return (
        f"count = 0\n{field('seed', seed)}mlen = 33\n{field('msg', message)}"
        f"{field('pk', public.raw)}{field('sk', secret.raw)}smlen = {len(signed)}\n{field('sm', signed)}"
    )


def kem_answers(library: PrivateLibrary, count: int) -> str:
    """`count` NIST response records of ML-KEM-1024, as liboqs' kat_kem.c prints them."""
    library.drbg.seed(bytes(range(48)))
    seeds = [library.drbg.random(48) for _ in range(count)]
    records = []
    for number, seed in enumerate(seeds):
        library.drbg.seed(seed)
        public, secret = ctypes.create_string_buffer(1568), ctypes.create_string_buffer(3168)
        library.call("OQS_KEM_ml_kem_1024_keypair", public, secret)
        ciphertext, shared = ctypes.create_string_buffer(1568), ctypes.create_string_buffer(32)
        library.call("OQS_KEM_ml_kem_1024_encaps", ciphertext, shared, public)
        records.append(
            f"count = {number}\n{field('seed', seed)}{field('pk', public.raw)}{field('sk', secret.raw)}"
            f"{field('ct', ciphertext.raw)}{field('ss', shared.raw)}"
        )
    return "\n".join(records)


def test_falcon_padded_1024_gives_the_nist_known_answer(private: PrivateLibrary) -> None:
    text = falcon_answer(private, "OQS_SIG_falcon_padded_1024", 1793, 2305)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "ddcc5683293388249e6fe85e992ea19d0986d34e060a44f82bc3db524a8c8390"


def test_ml_kem_1024_gives_all_hundred_known_answers(private: PrivateLibrary) -> None:
    digest = hashlib.sha256(kem_answers(private, 100).encode()).hexdigest()
    assert digest == "81d1ae0468f62154885b6f2a293c0eb48f9339645357a88bbbc186c57ab0ace0"


def test_it_is_liboqs_0_13(oqs: ModuleType) -> None:
    assert oqs.oqs_version() == "0.13.0"


def test_only_the_algorithms_we_use_are_built_in(oqs: ModuleType) -> None:
    assert set(oqs.get_enabled_sig_mechanisms()) == {"Falcon-1024", "Falcon-padded-1024"}
    assert set(oqs.get_enabled_kem_mechanisms()) == {"ML-KEM-1024"}


def test_falcon_uses_the_portable_code_only() -> None:
    config = (INSTALLED / "include" / "oqs" / "oqsconfig.h").read_text()
    assert "#define OQS_ENABLE_SIG_falcon_padded_1024 1" in config
    assert "falcon_padded_1024_avx2 1" not in config
    assert "-DOQS_DIST_BUILD=ON" in json.loads((INSTALLED / "BUILD.json").read_text())["options"]


@pytest.mark.parametrize("size", [0, 1, 64, 100_000])
def test_padded_signatures_are_always_1280_bytes(oqs: ModuleType, size: int) -> None:
    with oqs.Signature("Falcon-padded-1024") as signer, oqs.Signature("Falcon-padded-1024") as verifier:
        public = signer.generate_keypair()
        message = os.urandom(size)
        signature = signer.sign(message)
        assert len(signature) == PADDED_SIGNATURE_BYTES
        assert verifier.verify(message, signature, public)
        assert not verifier.verify(message + b"x", signature, public)


@pytest.mark.parametrize("position", [0, 1, 40, 41, 640, -1])
def test_a_flipped_bit_is_refused(oqs: ModuleType, position: int) -> None:
    with oqs.Signature("Falcon-padded-1024") as signer:
        public = signer.generate_keypair()
        damaged = bytearray(signer.sign(b"message"))
        damaged[position] ^= 1
        assert not signer.verify(b"message", bytes(damaged), public)


def test_key_encapsulation_round_trip(oqs: ModuleType) -> None:
    with oqs.KeyEncapsulation("ML-KEM-1024") as receiver, oqs.KeyEncapsulation("ML-KEM-1024") as sender:
        ciphertext, secret = sender.encap_secret(receiver.generate_keypair())
        assert receiver.decap_secret(ciphertext) == secret
        assert len(secret) == 32


def test_the_shim_answers_for_known_and_unknown_algorithms(oqs: ModuleType) -> None:
    assert oqs.native().OQS_SIG_supports_ctx_str(b"Falcon-padded-1024") is False
    assert oqs.native().OQS_SIG_supports_ctx_str(b"no such algorithm") is False


def test_no_path_of_the_build_machine_is_inside() -> None:
    content = LIBRARY.read_bytes()
    assert str(INSTALLED.resolve()).encode() not in content
    assert b"liboqs-build-" not in content
