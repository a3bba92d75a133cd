"""This node's record on the ledger: enrolled now, and again whenever the ledger does not know it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror

from .submitting import Submitter

_log = logging.getLogger(__name__)

LOOK_S: Final = 600.0
SEEN_S: Final = 15.0
RETRY_S: Final = 2.0


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
        if refusal.reason is not Reason.WrongChain:
            raise
        _log.warning("the node is not enrolled on the ledger yet, which began another chain: %s", refusal.message)
        await asyncio.sleep(RETRY_S)  # the mirror reads the new chain meanwhile
        return
    _log.info("the node is enrolled on the ledger at height %d", commit.height)
    try:
        await mirror.wait_until(lambda: key_id in mirror.nodes, SEEN_S)
    except TimeoutError:
        _log.warning("the node's record was not seen %d s after its commit", SEEN_S)
