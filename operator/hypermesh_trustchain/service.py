"""TrustChain on the wire: gRPC over TLS, errors as status codes, every outcome counted and logged.

The server's own TLS certificate comes from the same root as everybody's, lives in memory only, and is renewed
while the server runs. Clients trust it because ConfigMap `hypermesh-trust` names the root.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import Counter, Histogram

from hypermesh import falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh.v1 import trust_pb2_grpc
from hypermesh_clients.kube import KubeError
from hypermesh_trustchain import tls_leaves
from hypermesh_trustchain.enrolling import LIFETIME, Enroller
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason
from hypermesh_trustchain.root_store import UNUSABLE
from hypermesh_trustchain.roots import Root

log = logging.getLogger(__name__)

SERVICE = "hypermesh-trustchain"
PORT = 7440
MAX_MESSAGE = 64 * 1024
MAX_RPCS = 1000
"""At once; each may hold one message. Beyond that callers are told to come again."""
MAX_STREAMS = 10
"""At once on one connection; an enrolling process needs one."""
CONNECTION_AGE_MS = 30_000
CONNECTION_GRACE_MS = 20_000
"""After its age a connection takes no new calls, after the grace those that still hang (a body that never arrives) are
cut off; longer than a client waits for an answer. Clients connect anew by themselves."""
REASON_METADATA = "hypermesh-reason"
"""Trailing metadata key that carries the refusal's reason."""

_ENROLMENTS = Counter("hypermesh_trustchain_enrolments", "Enrolments asked for, by outcome.", ["outcome"])
_SECONDS = Histogram("hypermesh_trustchain_enrolment_seconds", "Time to complete an enrolment.")

_STATUS = {
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_ALGORITHM: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CSR_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CHALLENGE_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CHALLENGE_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CHALLENGE_USED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.BAD_SIGNATURE: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_UNBOUND: grpc.StatusCode.UNAUTHENTICATED,
    Reason.ACCOUNT_UNKNOWN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.TOO_MANY_KEYS: grpc.StatusCode.PERMISSION_DENIED,
    Reason.REGISTRY_FULL: grpc.StatusCode.PERMISSION_DENIED,
    Reason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_Answer = TypeVar("_Answer")
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TrustChainService(trust_pb2_grpc.TrustChainServicer):
    """Translates between the wire and an `Enroller`."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller

    async def Begin(self, request: pb.EnrolmentRequest, context: _Context) -> pb.EnrolmentChallenge:  # noqa: N802
        """A challenge for the key that wants to enrol."""

        async def answer() -> pb.EnrolmentChallenge:
            return self._enroller.begin(request)

        return await _translated("begin", request.public_key, context, answer)

    async def Complete(self, request: pb.EnrolmentProof, context: _Context) -> pb.Enrolment:  # noqa: N802
        """Certificates for a key whose challenge was answered."""
        started = time.monotonic()

        async def answer() -> pb.Enrolment:
            identity, enrolment = await self._enroller.complete(request)
            _ENROLMENTS.labels("granted").inc()
            _SECONDS.observe(time.monotonic() - started)
            log.info(
                "enrolled %s",
                identity.subject,
                extra={"role": pb.Role.Name(identity.role), "key": falcon.key_id(request.public_key).hex()},
            )
            return enrolment

        return await _translated("complete", request.public_key, context, answer)


async def _translated(
    step: str, public_key: bytes, context: _Context, answer: Callable[[], Awaitable[_Answer]]
) -> _Answer:
    """The answer, or the status that its failure means."""
    try:
        return await answer()
    except EnrolmentRefused as refused:
        code, reason, message = _STATUS[refused.reason], refused.reason.value, refused.message
    except UNUSABLE as error:  # this process ends with it (see main); the next one may find it mended
        code, reason, message = grpc.StatusCode.UNAVAILABLE, "RootUnusable", str(error)
    except KubeError as error:
        code, reason, message = grpc.StatusCode.UNAVAILABLE, "KubernetesUnavailable", str(error)
    _ENROLMENTS.labels(reason).inc()
    log.warning(
        "enrolment refused: %s",
        message,
        extra={"reason": reason, "step": step, "key": falcon.key_id(public_key).hex(), "peer": context.peer()},
    )
    await context.abort(code, message, trailing_metadata=((REASON_METADATA, reason),))
    raise AssertionError("abort raises")


class ServerCertificate:
    """The server's own leaf, made anew after half its life."""

    def __init__(self, root: Root, namespace: str) -> None:
        self._root = root
        self._names = tls_leaves.service_names(SERVICE, namespace)
        self._renew_at = 0.0

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """A new configuration when due, else None; gRPC asks at each handshake."""
        if time.time() < self._renew_at:
            return None
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        chain = tls_leaves.issue(self._root, key.public_key(), self._names, "trustchain", now, LIFETIME)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._renew_at = (now + LIFETIME / 2).timestamp()
        return grpc.ssl_server_certificate_configuration([(pem, chain)])


def server(enroller: Enroller, certificate: ServerCertificate, address: str) -> tuple[grpc.aio.Server, int]:
    """The server, not yet started, and its port; `address` as `[::]:7440`. Raises RuntimeError if taken."""
    instance = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
            ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
        ],
        maximum_concurrent_rpcs=MAX_RPCS,
    )
    trust_pb2_grpc.add_TrustChainServicer_to_server(TrustChainService(enroller), instance)  # type: ignore[no-untyped-call]
    first = certificate.fetch()
    credentials = grpc.dynamic_ssl_server_credentials(first, certificate.fetch)
    return instance, instance.add_secure_port(address, credentials)
