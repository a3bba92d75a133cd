"""FALCON-1024 signatures (padded form, round 3) through liboqs: generate, sign, verify, key ids.

A signature covers ``digests.digest(domain, *parts)``, never raw bytes, so that a signature made for one purpose
is worthless for another. Signatures are randomised and malleable: key nothing on their bytes.

liboqs-python downloads and compiles a library when it finds none, and prints on stdout; `native` looks for the
library itself first, and raises NativeLibraryMissing where that import would go to the network. It also pads
short keys silently, so all lengths are checked here before they reach it.

Source: Falcon specification 1.2 (round 3), table 3.3; PQClean falcon-padded-1024. No constant-time claim.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import logging
import os
import threading
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hypermesh.digests import digest

ALGORITHM = "Falcon-padded-1024"
PUBLIC_KEY_BYTES = 1793
SECRET_KEY_BYTES = 2305
SIGNATURE_BYTES = 1280
KEY_ID_BYTES = 32

# First byte of an encoded key pair: trust.proto's SIGNATURE_ALGORITHM_FALCON_PADDED_1024.
_ALGORITHM_ID = 1
_REMEDY = (
    "build it with `make liboqs`, or point OQS_INSTALL_PATH at a directory that holds lib/liboqs.so "
    f"with {ALGORITHM} enabled"
)


class NativeLibraryMissing(RuntimeError):
    """liboqs is absent, can't be loaded, or lacks the algorithm. Remedy: see the message."""


class KeyInvalid(ValueError):
    """Bytes that are no FALCON-1024 key of ours, or two halves that don't belong together."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A FALCON-1024 key: `public` 1793 bytes, `secret` 2305 bytes (hidden in repr)."""

    public: bytes
    secret: bytes = field(repr=False)

    def key_id(self) -> bytes:
        """SHA-256 of the public key, 32 bytes."""
        return key_id(self.public)

    def encode(self) -> bytes:
        """``algorithm id (1) | public | secret``, to be wrapped by hypermesh.keyfile before it rests anywhere."""
        return bytes([_ALGORITHM_ID]) + self.public + self.secret

    @staticmethod
    def decode(encoded: bytes) -> KeyPair:
        """Inverse of `encode`; raises KeyInvalid unless the halves belong together (tried by a signature)."""
        if len(encoded) != 1 + PUBLIC_KEY_BYTES + SECRET_KEY_BYTES:
            raise KeyInvalid(f"key pair of {len(encoded)} bytes: expected 4099; restore the key file or enrol anew")
        if encoded[0] != _ALGORITHM_ID:
            raise KeyInvalid(f"key pair of algorithm {encoded[0]}: this version knows 1 ({ALGORITHM}) only")
        pair = KeyPair(encoded[1 : 1 + PUBLIC_KEY_BYTES], encoded[1 + PUBLIC_KEY_BYTES :])
        try:
            signature = sign(pair.secret, "key-check", pair.public)
        except KeyInvalid:
            signature = b""
        if not verify(pair.public, signature, "key-check", pair.public):
            raise KeyInvalid("public and secret half of the key pair differ: restore the key file or enrol anew")
        return pair


def _installed() -> Path | None:
    """The liboqs prefix: OQS_INSTALL_PATH, or build/liboqs of the checkout that this file lies in."""
    named = os.environ.get("OQS_INSTALL_PATH")
    if named:
        return Path(named)
    built = Path(__file__).resolve().parents[2] / "build" / "liboqs"
    return built if built.is_dir() else None


def _loadable() -> None:
    """Raise NativeLibraryMissing unless liboqs-python will find a library that loads."""
    prefix = _installed()
    tried: list[str] = []
    if prefix is not None:
        os.environ["OQS_INSTALL_PATH"] = str(prefix)
        tried += [str(prefix / folder / "liboqs.so") for folder in ("lib", "lib64")]
    if not any(Path(path).exists() for path in tried):
        system = ctypes.util.find_library("oqs")
        if system is None:
            raise NativeLibraryMissing(f"liboqs not found (tried {tried or 'the system library path'}): {_REMEDY}")
        tried = [system]
    failures: list[str] = []
    for path in tried:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            failures.append(str(error))
        else:
            return
    raise NativeLibraryMissing(f"liboqs can't be loaded ({'; '.join(failures)}): {_REMEDY}")


@cache
def native() -> ModuleType:
    """liboqs-python on an existing library; call at start-up to fail early. Raises NativeLibraryMissing."""
    _loadable()
    for name in ("oqs", "oqs.oqs"):
        logging.getLogger(name).disabled = True  # it would write lines on stdout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # library and binding differ in version, by design
        import oqs
    module: ModuleType = oqs
    if ALGORITHM not in module.get_enabled_sig_mechanisms():
        raise NativeLibraryMissing(f"liboqs {module.oqs_version()} lacks {ALGORITHM}: {_REMEDY}")
    return module


_thread = threading.local()


def _verifier() -> Any:
    """One liboqs object a thread: they aren't to be shared, and making one costs as much as a verification."""
    if not hasattr(_thread, "verifier"):
        _thread.verifier = native().Signature(ALGORITHM)
    return _thread.verifier


def generate() -> KeyPair:
    """A fresh key pair from the operating system's random source."""
    with native().Signature(ALGORITHM) as signer:
        public: bytes = signer.generate_keypair()
        return KeyPair(public, signer.export_secret_key())


def sign(secret: bytes, domain: str, *parts: bytes) -> bytes:
    """Sign ``digest(domain, *parts)``; 1280 bytes, different each time. Raises KeyInvalid for a bad secret key."""
    if len(secret) != SECRET_KEY_BYTES:
        raise KeyInvalid(f"secret key of {len(secret)} bytes: FALCON-1024 has {SECRET_KEY_BYTES}")
    with native().Signature(ALGORITHM, secret) as signer:
        try:
            signature: bytes = signer.sign(digest(domain, *parts))
        except RuntimeError as error:
            raise KeyInvalid("these bytes are no FALCON-1024 secret key: restore the key file") from error
    return signature


def verify(public: bytes, signature: bytes, domain: str, *parts: bytes) -> bool:
    """True when `signature` is `public`'s over ``digest(domain, *parts)``.

    False for any wrong length or malformed bytes; raises only NativeLibraryMissing. Releases the GIL.
    """
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    valid: bool = _verifier().verify(digest(domain, *parts), signature, public)
    return valid


def key_id(public: bytes) -> bytes:
    """Plain SHA-256 of the public key: the name of its holder everywhere. 32 bytes."""
    return hashlib.sha256(public).digest()
