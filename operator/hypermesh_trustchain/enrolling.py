"""One enrolment from request to certificates: cheap checks first, then Kubernetes, then the registry, then ink.

Order: message sizes → challenge → FALCON signature → TLS request → TokenReview → role → challenge used up → node
counter made durable → certificates. Nothing is signed or remembered for anybody before the proofs hold.
"""

from __future__ import annotations

import datetime
import os
import time
from dataclasses import dataclass

from hypermesh import addressing, certificates, enrolments, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh_clients.kube import Kube
from hypermesh_trustchain import tls_leaves
from hypermesh_trustchain.challenges import Challenges
from hypermesh_trustchain.identities import Identity, identify
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason
from hypermesh_trustchain.root_store import RootStore
from hypermesh_trustchain.roots import CLUSTER, SKEW, Root

LIFETIME = datetime.timedelta(days=7)
"""Of both certificates. Holders renew after two thirds; not renewing is, for now, the only revocation."""
MAX_TOKEN = 16384


def check_key(public_key: bytes, algorithm: int) -> bytes:
    """The key id of a well-formed key. Raises EnrolmentRefused."""
    if algorithm != certificates.FALCON:
        raise EnrolmentRefused(
            Reason.UNSUPPORTED_ALGORITHM,
            f"key algorithm {algorithm} is unknown; use {certificates.FALCON} (FALCON-1024)",
        )
    if len(public_key) != falcon.PUBLIC_KEY_BYTES:
        raise EnrolmentRefused(
            Reason.MALFORMED,
            f"a public key of {len(public_key)} bytes; FALCON-1024 keys have {falcon.PUBLIC_KEY_BYTES}",
        )
    return falcon.key_id(public_key)


@dataclass(frozen=True, slots=True)
class Place:
    """Where this TrustChain stands: install namespace and uid of the cluster's kube-system."""

    namespace: str
    cluster_uid: str


class Enroller:
    """Answers Begin and Complete; the gRPC service around it only translates."""

    def __init__(self, kube: Kube, store: RootStore, root: Root, place: Place) -> None:
        self._kube = kube
        self._store = store
        self._root = root
        self._place = place
        self._challenges = Challenges()

    def begin(self, request: pb.EnrolmentRequest) -> pb.EnrolmentChallenge:
        """A challenge for the key. Raises EnrolmentRefused."""
        key_id = check_key(request.public_key, request.algorithm)
        return pb.EnrolmentChallenge(nonce=self._challenges.make(key_id, _monotonic_ms()))

    async def complete(self, proof: pb.EnrolmentProof) -> tuple[Identity, pb.Enrolment]:
        """Certificates for a proven key. Raises EnrolmentRefused; KubeError when Kubernetes can't be asked."""
        key_id = check_key(proof.public_key, certificates.FALCON)
        if not 0 < len(proof.token) <= MAX_TOKEN:
            raise EnrolmentRefused(Reason.MALFORMED, f"a token of {len(proof.token)} characters; send the token file")
        self._challenges.check(proof.nonce, key_id, _monotonic_ms())
        if not enrolments.verify(proof.public_key, proof.signature, proof.nonce, proof.token, proof.tls_csr):
            raise EnrolmentRefused(
                Reason.BAD_SIGNATURE,
                "the proof isn't signed by the key that enrols, over this nonce, token and request; begin again",
            )
        tls_key = tls_leaves.requested_key(proof.tls_csr)
        review = await self._kube.token_review(proof.token, (enrolments.AUDIENCE,))
        identity = identify(review, self._place.namespace)
        self._challenges.use(proof.nonce, _monotonic_ms())

        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        now_s, expires = int(now.timestamp()), int((now + LIFETIME).timestamp())
        is_node = identity.role == pb.ROLE_NODE
        counter = await self._store.enrol(key_id, identity.subject, expires, now_s) if is_node else 0
        body = pb.CertificateBody(
            version=certificates.VERSION,
            algorithm=certificates.FALCON,
            subject_key=proof.public_key,
            role=identity.role,
            subject=identity.subject,
            federation=self._root.federation,
            cluster=CLUSTER,
            cluster_uid=self._place.cluster_uid,
            node_counter=counter,
            not_before=now_s - int(SKEW.total_seconds()),
            not_after=expires,
            issuer=self._root.falcon.key_id(),
            serial=os.urandom(certificates.SERIAL_BYTES),
        )
        if is_node:
            names = tls_leaves.node_names(addressing.node_prefix(self._root.federation, CLUSTER, key_id, counter))
        else:
            names = tls_leaves.service_names(identity.service, self._place.namespace)
        role = pb.Role.Name(identity.role).removeprefix("ROLE_").lower()
        return identity, pb.Enrolment(
            certificate=certificates.issue(self._root.falcon.secret, body),
            tls_chain=tls_leaves.issue(self._root, tls_key, names, role, now, LIFETIME),
            tls_root=self._root.ca_pem,
            root_public_key=self._root.falcon.public,
        )


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
