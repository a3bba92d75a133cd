"""What an enrolling key signs: one definition for both sides of the wire.

The signature binds three things together: the challenge (freshness), the Kubernetes token (which pod on which
node) and the TLS request (which key will answer). Taking any of them from another enrolment breaks it.
"""

from __future__ import annotations

from hypermesh import falcon
from hypermesh.digests import digest

AUDIENCE = "hypermesh-trustchain"
"""Audience of the projected service account token; the API server itself refuses such a token."""
DOMAIN = "enrolment"


def _parts(nonce: bytes, token: str, csr: bytes) -> tuple[bytes, bytes, bytes]:
    return nonce, digest("enrolment/token", token.encode()), digest("enrolment/csr", csr)


def sign(secret: bytes, nonce: bytes, token: str, csr: bytes) -> bytes:
    """The proof (1280 bytes) that the holder of `secret` asks with this token for this TLS request (DER)."""
    return falcon.sign(secret, DOMAIN, *_parts(nonce, token, csr))


def verify(public: bytes, signature: bytes, nonce: bytes, token: str, csr: bytes) -> bool:
    """Whether `sign` made `signature` from the same parts; never raises."""
    return falcon.verify(public, signature, DOMAIN, *_parts(nonce, token, csr))
