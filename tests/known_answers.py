"""The NIST known answers of FALCON-1024 and ML-KEM-1024, made again by our liboqs with NIST's own random source.

An AES-256-CTR DRBG (NIST SP 800-90A, as in the PQC submissions' `rng.c`) is loaded into a private copy of the library,
so that no other test ever sees a deterministic random source.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

INSTALLED = Path(__file__).resolve().parents[1] / "build" / "liboqs"
LIBRARY = INSTALLED / "lib" / "liboqs.so"


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


def field(name: str, value: bytes) -> str:
    return f"{name} = {value.hex().upper()}\n"


def falcon_answers(library: PrivateLibrary, prefix: str, public_size: int, secret_size: int, count: int) -> str:
    """`count` NIST response records of key generation and signing, as liboqs' kat_sig.c prints them."""
    library.drbg.seed(bytes(range(48)))
    inputs = [(library.drbg.random(48), library.drbg.random(33 * (number + 1))) for number in range(count)]
    records = []
    for number, (seed, message) in enumerate(inputs):
        library.drbg.seed(seed)
        public, secret = ctypes.create_string_buffer(public_size), ctypes.create_string_buffer(secret_size)
        library.call(f"{prefix}_keypair", public, secret)
        signature, length = ctypes.create_string_buffer(2048), ctypes.c_size_t()
        library.call(f"{prefix}_sign", signature, ctypes.byref(length), message, ctypes.c_size_t(len(message)), secret)
        signed = joined(prefix, signature.raw[: length.value], message)
        records.append(
            f"count = {number}\n{field('seed', seed)}mlen = {len(message)}\n{field('msg', message)}"
            f"{field('pk', public.raw)}{field('sk', secret.raw)}smlen = {len(signed)}\n{field('sm', signed)}"
        )
    return "\n".join(records)


def joined(prefix: str, signature: bytes, message: bytes) -> bytes:
    """Signature and message as the submission's API returns them; the padded form puts one behind the other."""
    if "padded" in prefix:
        return signature + message
    return (len(signature) - 40).to_bytes(2, "big") + signature[1:41] + message + b"\x2a" + signature[41:]


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
