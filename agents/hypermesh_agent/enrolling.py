"""Enrolment, in a process of its own: `python -m hypermesh_agent.enrolling` prints the node's Papers and ends.

    trust -> key -> kept enrolment, or TrustChain --enrol--> $HYPERMESH_STATE/keys/enrolment (wrapped) -> Papers

A kept enrolment lets the agent start while TrustChain is away; it is renewed at two thirds of its life. The agent reads
the one line on stdout (see identity.obtain); everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hypermesh import certificates, falcon, keyfile
from hypermesh.v1 import trust_pb2
from hypermesh_clients.enrolment import Enrolment, EnrolmentRefused, TrustChainUnavailable, enrol
from hypermesh_clients.files import write_durably
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.serving import setup_logging
from hypermesh_clients.trust import KEK_SECRET, Trust, read_trust

from .children import die_with_parent
from .identity import IdentityError, Papers, TlsIdentity
from .keys import cluster_half, local_half, node_key

_log = logging.getLogger(__name__)

FILE: Final = "enrolment"
RETRY_S: Final = 2.0
PATIENCE_S: Final = 30.0
SPARE_S: Final = 3600
"""A kept enrolment with less life than this is not used: it would end while TrustChain is waited for."""
TROUBLES: Final = (IdentityError, EnrolmentRefused, ConfigError, falcon.NativeLibraryMissing, OSError)
"""What `papers` raises when a person must act."""


async def papers(namespace: str, trustchain: str, token_file: Path, state: Path) -> Papers:
    """The node's papers; waits for API server, trust, Secret and TrustChain. Raises IdentityError, EnrolmentRefused."""
    directory = state / "keys"
    async with Kube.auto() as kube:
        trust = await read_trust(kube, namespace, patience=float("inf"))
        half = await _cluster_half(kube, namespace)
    keypair = node_key(directory, half)
    kek = keyfile.derive_kek(local_half(directory), half)
    enrolment = kept(directory, kek, keypair, trust, int(time.time()))
    if enrolment is None or enrolment.renew_at <= time.time():
        enrolment = await _enrol(trust, keypair, trustchain, token_file, enrolment)
        keep(directory, kek, enrolment)
    tls = TlsIdentity(enrolment.tls_key, enrolment.tls_chain, enrolment.tls_root)
    return Papers(keypair, enrolment.certificate, tls, enrolment.renew_at)


def keep(directory: Path, kek: bytes, enrolment: Enrolment) -> None:
    """Writes the enrolment, TLS key included, wrapped."""
    content = {
        "certificate": _text(enrolment.certificate.SerializeToString(deterministic=True)),
        "tlsKey": _text(enrolment.tls_key),
        "tlsChain": _text(enrolment.tls_chain),
        "tlsRoot": _text(enrolment.tls_root),
        "rootPublic": _text(enrolment.root_public),
    }
    write_durably(directory / FILE, keyfile.wrap(json.dumps(content).encode(), kek), 0o600)


def kept(directory: Path, kek: bytes, keypair: falcon.KeyPair, trust: Trust, now_s: int) -> Enrolment | None:
    """The kept enrolment when it is for this key and this federation and lives long enough, else None."""
    try:
        content = json.loads(keyfile.unwrap((directory / FILE).read_bytes(), kek))
        parts = {name: base64.b64decode(text, validate=True) for name, text in content.items()}
        certificate = trust_pb2.Certificate.FromString(parts["certificate"])
        body = certificates.verify(certificate, trust.root_public, now_s + SPARE_S)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, certificates.CertificateInvalid) as error:
        _log.info("the kept enrolment is of no use, so the node enrols again: %s", error)
        return None
    if body.subject_key != keypair.public or parts["tlsRoot"] != trust.ca_pem:
        return None
    return Enrolment(certificate, body, parts["tlsKey"], parts["tlsChain"], parts["tlsRoot"], parts["rootPublic"])


async def _enrol(
    trust: Trust, keypair: falcon.KeyPair, trustchain: str, token_file: Path, present: Enrolment | None
) -> Enrolment:
    """A new enrolment; the present one, which still holds, whatever goes wrong with renewing it."""
    while True:
        try:
            return await enrol(
                trustchain, trust.ca_pem, keypair, token_file, root_public=trust.root_public, patience=PATIENCE_S
            )
        except Exception as error:
            if present is not None:
                _log.warning("the enrolment is not renewed yet: %s", error)
                return present
            if not isinstance(error, TrustChainUnavailable):
                raise
            _log.warning("waiting for TrustChain: %s", error)


async def _cluster_half(kube: Kube, namespace: str) -> bytes:
    """The cluster's half of the wrapping key, however long TrustChain or the API server take. Raises IdentityError."""
    told = ""
    while True:
        try:
            half = await cluster_half(kube, namespace)
            if half is not None:
                return half
            problem = f"Secret {namespace}/{KEK_SECRET} is still empty; TrustChain fills it at its first start"
        except KubeError as error:
            problem = str(error)
        if problem != told:
            told = problem
            _log.warning("waiting for the cluster's half of the wrapping key: %s", problem)
        await asyncio.sleep(RETRY_S)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1, with one log line, when a person must act."""
    parser = argparse.ArgumentParser(description="Prints the node's papers for the agent that started this.")
    for flag in ("--namespace", "--trustchain", "--token-file", "--state"):
        parser.add_argument(flag, required=True)
    parsed = parser.parse_args(arguments)
    die_with_parent()
    setup_logging("hypermesh-agent")
    work = papers(parsed.namespace, parsed.trustchain, Path(parsed.token_file), Path(parsed.state))
    try:
        line = asyncio.run(work).encode()
    except TROUBLES as error:
        _log.critical("%s", error)
        return 1
    sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
