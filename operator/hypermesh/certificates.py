"""Certificates: TrustChain's word on whose a key is and what it may do. Issued in one place, verified everywhere.

Data flow: `CertificateBody` → deterministic bytes → one FALCON-1024 signature of the root over domain
"certificate" → `Certificate`. Verification takes the same road back and refuses everything that isn't exactly
what `issue` could have made: a second encoding of the same body, an unknown field, another federation's root.

Times are Unix seconds and always an argument: the ledger verifies by block time, others by their clock.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from hypermesh import addressing, falcon
from hypermesh.v1 import trust_pb2 as pb

DOMAIN = "certificate"
VERSION = 1
SERIAL_BYTES = 16
MAX_BODY_BYTES = 4096
MAX_SUBJECT = 253  # a Kubernetes node name is a DNS subdomain, RFC 1123
MAX_CLUSTER_UID = 64

FALCON = pb.SIGNATURE_ALGORITHM_FALCON_PADDED_1024


class CertificateInvalid(Exception):
    """A certificate that must not be believed. `reason` is CamelCase, the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


def issue(root_secret: bytes, body: pb.CertificateBody) -> pb.Certificate:
    """Signs `body` with the root's secret key (2305 bytes). ValueError when `verify` would refuse the body."""
    problem = _body_problem(body)
    if problem:
        raise ValueError(f"certificate for {body.subject!r}: {problem}")
    encoded = body.SerializeToString(deterministic=True)
    return pb.Certificate(body=encoded, algorithm=FALCON, signature=falcon.sign(root_secret, DOMAIN, encoded))


def verify(certificate: pb.Certificate, root_public: bytes, now_s: int) -> pb.CertificateBody:
    """The body of a certificate that the root (1793 bytes) signed and that holds at `now_s`.

    Raises CertificateInvalid with reason Malformed, UnsupportedAlgorithm, WrongIssuer, BadSignature, NotYetValid
    or Expired.
    """
    body = decode(certificate)
    if body.issuer != falcon.key_id(root_public) or body.federation != addressing.federation_id(root_public):
        raise CertificateInvalid(
            "WrongIssuer",
            f"the certificate of {body.subject!r} comes from another federation's root; enrol with this TrustChain",
        )
    if not falcon.verify(root_public, certificate.signature, DOMAIN, certificate.body):
        raise CertificateInvalid(
            "BadSignature", f"the root didn't sign this certificate of {body.subject!r}; enrol again"
        )
    if now_s < body.not_before:
        raise CertificateInvalid(
            "NotYetValid",
            f"the certificate of {body.subject!r} holds from {body.not_before}, now is {now_s}; set the clock",
        )
    if now_s >= body.not_after:
        raise CertificateInvalid(
            "Expired", f"the certificate of {body.subject!r} ended at {body.not_after}, now is {now_s}; enrol again"
        )
    return body


def decode(certificate: pb.Certificate) -> pb.CertificateBody:
    """The body, well-formed but not yet believed. Raises CertificateInvalid (Malformed, UnsupportedAlgorithm)."""
    if certificate.algorithm != FALCON:
        raise CertificateInvalid(
            "UnsupportedAlgorithm",
            f"signature algorithm {certificate.algorithm} is unknown; use {FALCON} (FALCON-1024, padded)",
        )
    if len(certificate.body) > MAX_BODY_BYTES:
        raise CertificateInvalid("Malformed", f"a body of {len(certificate.body)} bytes exceeds {MAX_BODY_BYTES}")
    body = pb.CertificateBody()
    try:
        body.ParseFromString(certificate.body)
    except DecodeError:
        raise CertificateInvalid("Malformed", "the body is no CertificateBody message; enrol again") from None
    known = pb.CertificateBody()
    known.CopyFrom(body)
    known.DiscardUnknownFields()
    if known.SerializeToString(deterministic=True) != certificate.body:
        raise CertificateInvalid("Malformed", "the body isn't the one deterministic encoding of its fields")
    problem = _body_problem(body)
    if problem:
        raise CertificateInvalid("Malformed", f"certificate of {body.subject!r}: {problem}")
    return body


def _body_problem(body: pb.CertificateBody) -> str | None:
    """What about the body can never be right, whoever signed it; None when nothing."""
    checks = (
        (body.version == VERSION, f"version {body.version}, must be {VERSION}"),
        (body.algorithm == FALCON, f"key algorithm {body.algorithm}, must be {FALCON}"),
        (
            len(body.subject_key) == falcon.PUBLIC_KEY_BYTES,
            f"subject key of {len(body.subject_key)} bytes, must be {falcon.PUBLIC_KEY_BYTES}",
        ),
        (body.role in (pb.ROLE_NODE, pb.ROLE_OPERATOR, pb.ROLE_VALIDATOR), f"unknown role {body.role}"),
        (
            0 < len(body.subject) <= MAX_SUBJECT,
            f"subject of {len(body.subject)} characters, must be 1 to {MAX_SUBJECT}",
        ),
        (len(body.federation) == addressing.FEDERATION_BYTES, "federation id must have 5 bytes"),
        (0 < body.cluster < 1 << 16, f"cluster {body.cluster} is not within 1 to 65535"),
        (0 < len(body.cluster_uid) <= MAX_CLUSTER_UID, "cluster uid is missing or too long"),
        (body.not_before < body.not_after, "it ends before it begins"),
        (len(body.issuer) == falcon.KEY_ID_BYTES, "issuer must be a 32-byte key id"),
        (len(body.serial) == SERIAL_BYTES, f"serial must have {SERIAL_BYTES} bytes"),
        (body.role == pb.ROLE_NODE or body.node_counter == 0, "only nodes have a node counter"),
    )
    return next((message for right, message in checks if not right), None)
