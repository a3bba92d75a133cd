"""Whom the ledger belongs to: the federation's root key, and a TLS certificate to show.

Two sources: files (tests, machines without Kubernetes), and TrustChain (see membership).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from hypermesh import falcon
from hypermesh.v1 import trust_pb2
from hypermesh_ledger.errors import IngressUnusable, TrustUnusable


@dataclass(frozen=True, slots=True)
class Identity:
    """The ledger's own FALCON key, and what TrustChain certified of it."""

    keypair: falcon.KeyPair
    certificate: trust_pb2.Certificate


class Federation(Protocol):
    """Whom the ledger belongs to, and how it shows that."""

    root_public: bytes
    ca_pem: bytes
    """Whom to believe when another ledger answers."""

    def identity(self) -> Identity | None:
        """None when it has none, and can be no validator among others."""

    def pair(self) -> tuple[bytes, bytes]:
        """(PEM key, PEM chain) for TLS, now. Raises IngressUnusable."""

    def check(self) -> str | None:
        """Readiness: None while clients accept what `pair` shows."""

    async def renew(self) -> None:
        """Keeps `pair` valid, for ever."""


class FileFederation:
    """Root key, certificate and key in files; whoever writes them renews them."""

    def __init__(
        self,
        root_public_key: Path,
        certificate: Path,
        key: Path,
        ca: Path | None = None,
        identity: tuple[Path, Path] | None = None,
    ) -> None:
        """ca: when the certificate is not its own; identity: FALCON key and certificate. Raises TrustUnusable."""
        try:
            self.root_public = root_public_key.read_bytes()
        except OSError as error:
            raise TrustUnusable(f"Can't read the root public key {root_public_key}: {error}.") from error
        self._certificate, self._key = certificate, key
        try:
            self.ca_pem = (ca or certificate).read_bytes()
            self._identity = None if identity is None else _identity(*identity)
        except (OSError, falcon.KeyInvalid, DecodeError) as error:
            raise TrustUnusable(f"Can't use the ledger's files: {error}. Check the options.") from error

    def identity(self) -> Identity | None:
        """See Federation."""
        return self._identity

    def pair(self) -> tuple[bytes, bytes]:
        """See Federation."""
        try:
            return self._key.read_bytes(), self._certificate.read_bytes()
        except OSError as error:
            text = f"Can't read the TLS certificate {self._certificate} or its key {self._key}: {error}."
            raise IngressUnusable(f"{text} Check --tls-cert and --tls-key.") from error

    def check(self) -> str | None:
        """See Federation; whoever writes the files minds their life."""
        return None

    async def renew(self) -> None:
        """See Federation; the files are read again at each handshake."""
        await asyncio.Event().wait()


def _identity(key: Path, certificate: Path) -> Identity:
    pair = falcon.KeyPair.decode(key.read_bytes())
    return Identity(pair, trust_pb2.Certificate.FromString(certificate.read_bytes()))
