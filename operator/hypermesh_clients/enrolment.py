"""Enrolment from the side of the one who enrols: a node's agent, the operator, a validator.

Data flow: challenge → FALCON signature over challenge, service account token and TLS request → certificate
(what others check) and TLS chain (what the key speaks under). Both come back verified against the roots that the
caller trusts already (`hypermesh_clients.trust`), never against what the answer says of itself, or not at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import certificates, enrolments, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh.v1 import trust_pb2_grpc

REASON_METADATA = "hypermesh-reason"
CALL_TIMEOUT = 15.0
RENEW_AFTER = 2 / 3
_TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,  # the challenge is gone, as after a restart: begin again
)


class EnrolmentRefused(Exception):
    """TrustChain said no, and will again. `reason` is CamelCase, as hypermesh_trustchain.refusals lists them."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"TrustChain refuses to enrol this key: {reason}: {message}")
        self.reason = reason
        self.message = message


class TrustChainUnavailable(Exception):
    """TrustChain gave no answer within the time allowed; try again."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What enrolment gives. `body` is verified; PEM everywhere; `tls_key` hidden in repr."""

    certificate: pb.Certificate
    body: pb.CertificateBody
    tls_key: bytes = field(repr=False)
    tls_chain: bytes
    tls_root: bytes
    root_public: bytes

    @property
    def key_id(self) -> bytes:
        """32 bytes."""
        return falcon.key_id(self.body.subject_key)

    @property
    def renew_at(self) -> float:
        """Unix seconds at which to enrol again: two thirds of the certificate's life."""
        return self.body.not_before + RENEW_AFTER * (self.body.not_after - self.body.not_before)


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA P-256 key for TLS; cheap, so make one for each enrolment."""
    return ec.generate_private_key(ec.SECP256R1())


async def enrol(
    target: str,
    ca_pem: bytes,
    keypair: falcon.KeyPair,
    token_file: Path,
    tls_key: ec.EllipticCurvePrivateKey | None = None,
    *,
    root_public: bytes,
    patience: float = 120.0,
    server_name: str | None = None,
) -> Enrolment:
    """Enrols `keypair` at TrustChain `target` (`host:port`), whose roots are `ca_pem` (TLS) and `root_public` (FALCON).

    The token file is read anew at each attempt, because kubelet rotates it. While TrustChain is away it is
    tried again for `patience` seconds. `server_name`: the TLS name to expect when it isn't the target's host
    (port-forwarding). Raises EnrolmentRefused, TrustChainUnavailable, OSError for the token file.
    """
    tls_key = tls_key or new_tls_key()
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(tls_key, hashes.SHA256())
    der = csr.public_bytes(serialization.Encoding.DER)
    options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    deadline, pause = time.monotonic() + patience, 0.25
    async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca_pem), options=options) as channel:
        stub = trust_pb2_grpc.TrustChainStub(channel)  # type: ignore[no-untyped-call]
        while True:
            try:
                token = token_file.read_text().strip()  # noqa: ASYNC240 - a kilobyte on tmpfs
                answer = await _attempt(stub, keypair, token, der)
                break
            except grpc.aio.AioRpcError as error:
                reason = _reason(error)
                if error.code() not in _TRANSIENT:
                    raise EnrolmentRefused(reason, error.details() or "no details") from error
                if time.monotonic() + pause > deadline:
                    raise TrustChainUnavailable(
                        f"TrustChain at {target}: {reason}: {error.details()}. See deployment/hypermesh-trustchain."
                    ) from error
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause = min(pause * 2, 5.0)
    return _verified(answer, ca_pem, root_public, keypair, tls_key)


async def _attempt(
    stub: trust_pb2_grpc.TrustChainStub, keypair: falcon.KeyPair, token: str, csr: bytes
) -> pb.Enrolment:
    request = pb.EnrolmentRequest(public_key=keypair.public, algorithm=certificates.FALCON)
    challenge = await stub.Begin(request, timeout=CALL_TIMEOUT)
    answer: pb.Enrolment = await stub.Complete(
        pb.EnrolmentProof(
            nonce=challenge.nonce,
            public_key=keypair.public,
            signature=enrolments.sign(keypair.secret, challenge.nonce, token, csr),
            token=token,
            tls_csr=csr,
        ),
        timeout=CALL_TIMEOUT,
    )
    return answer


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == REASON_METADATA:
            return str(value)
    return str(error.code().name)


def _verified(
    answer: pb.Enrolment,
    ca_pem: bytes,
    root_public: bytes,
    keypair: falcon.KeyPair,
    tls_key: ec.EllipticCurvePrivateKey,
) -> Enrolment:
    """Believes an answer only when the root that we know signed it, for our keys. Raises EnrolmentRefused."""
    if answer.root_public_key != root_public or answer.tls_root != ca_pem:
        raise EnrolmentRefused(
            "RootForeign",
            "TrustChain answers for another root than ConfigMap hypermesh-trust names; see who changed either, "
            "then restart deployment/hypermesh-trustchain",
        )
    try:
        body = certificates.verify(answer.certificate, root_public, int(time.time()))
    except certificates.CertificateInvalid as error:
        raise EnrolmentRefused(error.reason, error.message) from error
    try:
        leaf = x509.load_pem_x509_certificate(answer.tls_chain)
    except ValueError as error:
        raise EnrolmentRefused("AnswerMalformed", f"the TLS chain can't be read ({error}); see its log") from error
    if body.subject_key != keypair.public or leaf.public_key() != tls_key.public_key():
        raise EnrolmentRefused("AnswerForeign", "the certificates are for other keys than ours; see TrustChain's log")
    pem = tls_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Enrolment(answer.certificate, body, pem, answer.tls_chain, ca_pem, root_public)
