"""Who is asking: from what Kubernetes says about a token to a role and a subject. Pure.

Source: KEP-4193 (node and pod bindings in bound service account tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hypermesh.enrolments import AUDIENCE
from hypermesh.v1 import trust_pb2 as pb
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

NODE_NAME = "authentication.kubernetes.io/node-name"
POD_NAME = "authentication.kubernetes.io/pod-name"

ROLES: Mapping[str, pb.Role] = {
    "hypermesh-agent": pb.ROLE_NODE,
    "hypermesh-operator": pb.ROLE_OPERATOR,
    "hypermesh-ledger": pb.ROLE_VALIDATOR,
}
"""Service account → what its key may do."""


class Review(Protocol):
    """The part of a TokenReview's answer that decides."""

    @property
    def authenticated(self) -> bool: ...
    @property
    def username(self) -> str: ...
    @property
    def audiences(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> Mapping[str, tuple[str, ...]]: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """`subject` is the node's name for ROLE_NODE, the pod's for ROLE_VALIDATOR (each has a vote), else the service's.

    `service` is the name of the service that it serves; empty for a node.
    """

    role: pb.Role
    subject: str
    service: str


def identify(review: Review, namespace: str) -> Identity:
    """The identity behind a reviewed token of a pod in the install `namespace`. Raises EnrolmentRefused."""
    if not review.authenticated or AUDIENCE not in review.audiences:
        raise EnrolmentRefused(
            Reason.TOKEN_INVALID,
            f"the token is expired, revoked or not for audience {AUDIENCE}; mount a projected token for it",
        )
    kind, _, account = review.username.rpartition(":")
    role = ROLES.get(account)
    if kind != f"system:serviceaccount:{namespace}" or role is None:
        known = ", ".join(ROLES)
        raise EnrolmentRefused(
            Reason.ACCOUNT_UNKNOWN,
            f"{review.username} may not enrol; only these service accounts of namespace {namespace} may: {known}",
        )
    pods, nodes = review.extra.get(POD_NAME, ()), review.extra.get(NODE_NAME, ())
    if len(pods) != 1 or (role == pb.ROLE_NODE and len(nodes) != 1):
        raise EnrolmentRefused(
            Reason.TOKEN_UNBOUND,
            f"the token of {review.username} isn't bound to a pod on a node; use the pod's projected token "
            "(a cluster before Kubernetes 1.32 doesn't name the node in it)",
        )
    if role == pb.ROLE_NODE:
        return Identity(role, nodes[0], "")
    return Identity(role, pods[0] if role == pb.ROLE_VALIDATOR else account, account)
