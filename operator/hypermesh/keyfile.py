"""Secret keys at rest: AES-256-GCM under a key that needs both the node's disk and the cluster's secret.

Data flow: random node-local file + Secret in the cluster → `derive_kek` (HKDF-SHA512) → `wrap`/`unwrap`. Neither
a stolen disk nor a copied Secret opens a key alone; both together do, as does root on the running node.

Layout: ``"HMKF" | version (1) | cipher id (1) | nonce (12) | ciphertext | tag (16)``; everything before the
nonce is authenticated too. Sources: RFC 5869, NIST SP 800-38D.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hypermesh.digests import preimage

KEK_BYTES = 32
SECRET_BYTES = 32

_MAGIC = b"HMKF"
_VERSION = 1
_AES_256_GCM = 1
_HEADER = _MAGIC + bytes([_VERSION, _AES_256_GCM])
_NONCE_BYTES = 12
_TAG_BYTES = 16


class KeyFileInvalid(ValueError):
    """Bytes that are no key file of a version and cipher we know."""


class WrongKey(ValueError):
    """The key file doesn't open: another wrapping key made it, or its bytes were changed (GCM can't tell which)."""


def derive_kek(local: bytes, cluster: bytes) -> bytes:
    """The 32-byte wrapping key from the node-local and the cluster's secret, 32 random bytes or more each.

    Raises KeyFileInvalid for a shorter secret.
    """
    for name, secret in (("node-local", local), ("cluster", cluster)):
        if len(secret) < SECRET_BYTES:
            raise KeyFileInvalid(f"the {name} secret has {len(secret)} bytes: {SECRET_BYTES} random ones are needed")
    framed = preimage("keyfile", local, cluster)
    return HKDF(algorithm=SHA512(), length=KEK_BYTES, salt=None, info=b"hypermesh/keyfile/1").derive(framed)


def is_wrapped(blob: bytes) -> bool:
    """Whether these bytes are a key file, of whatever version."""
    return blob.startswith(_MAGIC)


def wrap(secret: bytes, kek: bytes) -> bytes:
    """Encrypt `secret` under the 32-byte `kek` with a fresh nonce."""
    nonce = os.urandom(_NONCE_BYTES)
    return _HEADER + nonce + AESGCM(_checked(kek)).encrypt(nonce, secret, _HEADER)


def unwrap(blob: bytes, kek: bytes) -> bytes:
    """Inverse of `wrap`; raises KeyFileInvalid for foreign bytes, WrongKey when authentication fails."""
    if len(blob) < len(_HEADER) + _NONCE_BYTES + _TAG_BYTES or blob[:4] != _MAGIC:
        raise KeyFileInvalid("these bytes are no key file: restore it from a backup, or delete it to enrol anew")
    if blob[:6] != _HEADER:
        raise KeyFileInvalid(
            f"key file of version {blob[4]}, cipher {blob[5]}: this program reads version {_VERSION}, cipher "
            f"{_AES_256_GCM} (AES-256-GCM); use the version that wrote it"
        )
    nonce, ciphertext = blob[6 : 6 + _NONCE_BYTES], blob[6 + _NONCE_BYTES :]
    try:
        return AESGCM(_checked(kek)).decrypt(nonce, ciphertext, _HEADER)
    except InvalidTag as error:
        raise WrongKey(
            "the key file doesn't open with this node's and this cluster's secrets, or was changed: "
            "restore both secrets, or delete the key file to enrol anew"
        ) from error


def _checked(kek: bytes) -> bytes:
    if len(kek) != KEK_BYTES:
        raise KeyFileInvalid(f"wrapping key of {len(kek)} bytes: use derive_kek, which gives {KEK_BYTES}")
    return kek
