"""EnrolNode: a TrustChain certificate makes a key known, as a node, an operator or a validator."""

from __future__ import annotations

from hypermesh import addressing, certificates
from hypermesh.certificates import CertificateInvalid
from hypermesh.falcon import key_id
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import behaviour
from hypermesh_ledger.execution.context import Context, Signer


def check_certificate(context: Context, certificate: trust_pb2.Certificate) -> trust_pb2.CertificateBody:
    """The body, when this federation's root signed it and it is valid at block time. Raises Refused."""
    try:
        return certificates.verify(certificate, context.genesis.root_public_key, context.time_ms // 1000)
    except CertificateInvalid as error:
        raise Refused(Reason.CertificateInvalid, str(error)) from error


def enrol_node(context: Context, operation: ledger_pb2.EnrolNode) -> int:
    """Returns the height at which the certificate was enrolled (an earlier one when it already was)."""
    body = check_certificate(context, operation.certificate)
    signer = context.decoded.read.signer
    if key_id(body.subject_key) != signer:
        text = f"The certificate is {body.subject}'s, but another key signed its enrolment."
        raise Refused(Reason.CertificateInvalid, text)
    held = context.node(signer)
    if held is not None:
        if held.record.certificate == operation.certificate:
            return held.record.enrolled_height
        if held.body.not_before >= body.not_before:
            raise Refused(Reason.CertificateInvalid, f"{body.subject} is enrolled with a newer certificate.")
    if body.role == trust_pb2.ROLE_NODE:
        _take_prefix(context, body, signer, held)
    record = ledger_pb2.NodeRecord(
        key_id=signer,
        certificate=operation.certificate,
        trust_score=behaviour.enrolled(context, body, signer, held.record.trust_score if held else None),
        enrolled_height=context.height,
    )
    context.put(keys.node(signer), record)
    return context.height


def _take_prefix(context: Context, body: trust_pb2.CertificateBody, node: bytes, held: Signer | None) -> None:
    network = addressing.node_prefix(body.federation, body.cluster, node, body.node_counter)
    key = keys.prefix(network.network_address.packed[:11])
    owner = context.state.get(key)
    if owner is not None and owner != node:
        text = f"{network} of {body.subject} belongs to node {owner.hex()[:16]}."
        raise Refused(Reason.NodeAddressTaken, text)
    if held is not None and (held.body.cluster, held.body.node_counter) != (body.cluster, body.node_counter):
        text = f"{body.subject} is enrolled with another address; a renewed certificate must keep it."
        raise Refused(Reason.CertificateInvalid, text)
    context.state.put(key, node)
