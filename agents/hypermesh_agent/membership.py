"""This node among the others: its certificate from TrustChain, kept over restarts, and its record on the ledger.

    TrustChain --enrol--> certificate + TLS chain --> $HYPERMESH_STATE/keys/enrolment (wrapped) --> EnrolNode

A kept enrolment lets the agent start while TrustChain is away. It is renewed at two thirds of its life.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from pathlib import Path
from typing import Final

from hypermesh import certificates, falcon, keyfile
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.enrolment import Enrolment
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.trust import Trust

from .identity import write_durably
from .submitting import Submitter

_log = logging.getLogger(__name__)

FILE: Final = "enrolment"
LOOK_S: Final = 600.0
SEEN_S: Final = 15.0
SPARE_S: Final = 3600
"""A kept enrolment with less life than this is not used: it would end while TrustChain is waited for."""


def keep(directory: Path, kek: bytes, enrolment: Enrolment) -> None:
    """Writes the enrolment, TLS key included, wrapped."""
    content = {
        "certificate": _text(enrolment.certificate.SerializeToString(deterministic=True)),
        "tlsKey": _text(enrolment.tls_key),
        "tlsChain": _text(enrolment.tls_chain),
        "tlsRoot": _text(enrolment.tls_root),
        "rootPublic": _text(enrolment.root_public),
    }
    write_durably(directory / FILE, keyfile.wrap(json.dumps(content).encode(), kek))


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


async def keep_enrolled(
    mirror: Mirror, submitter: Submitter, certificate: trust_pb2.Certificate, key_id: bytes
) -> None:
    """Enrols the node on the ledger, now and whenever the ledger does not know it (a new ledger, a lost state)."""
    await mirror.synced.wait()
    while True:
        if _wanted(mirror, certificate, key_id):
            await _enrol(mirror, submitter, certificate, key_id)
        try:
            await mirror.wait_until(lambda: key_id not in mirror.nodes, LOOK_S)
        except TimeoutError:
            continue


def _wanted(mirror: Mirror, certificate: trust_pb2.Certificate, key_id: bytes) -> bool:
    """Whether the ledger lacks this certificate; an older agent's newer one is left alone."""
    held = mirror.nodes.get(key_id)
    if held is None:
        return True
    ours = trust_pb2.CertificateBody.FromString(certificate.body)
    theirs = trust_pb2.CertificateBody.FromString(held.certificate.body)
    return held.certificate != certificate and theirs.not_before < ours.not_before


async def _enrol(mirror: Mirror, submitter: Submitter, certificate: trust_pb2.Certificate, key_id: bytes) -> None:
    operation = ledger_pb2.Operation(enrol_node=ledger_pb2.EnrolNode(certificate=certificate))
    try:
        commit = await submitter.submit(operation)
    except LedgerUnavailable as error:
        _log.warning("the node is not enrolled on the ledger yet: %s", error)
        return
    except Refused as refusal:
        if refusal.reason is Reason.CertificateInvalid and not _wanted(mirror, certificate, key_id):
            return  # another submission of ours was first
        raise
    _log.info("the node is enrolled on the ledger at height %d", commit.height)
    try:
        await mirror.wait_until(lambda: key_id in mirror.nodes, SEEN_S)
    except TimeoutError:
        _log.warning("the node's record was not seen %d s after its commit", SEEN_S)


def seconds_to_renewal(enrolment: Enrolment) -> float:
    return max(0.0, enrolment.renew_at - time.time())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
