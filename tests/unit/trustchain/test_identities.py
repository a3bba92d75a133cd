"""From a reviewed token to role and subject."""

from __future__ import annotations

import pytest

from hypermesh.v1 import trust_pb2 as pb
from hypermesh_clients.kube import TokenReview
from hypermesh_trustchain.identities import NODE_NAME, POD_NAME, Identity, identify
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

NAMESPACE = "hypermesh-system"
AUDIENCES = ("hypermesh-trustchain",)


def review(
    username: str = f"system:serviceaccount:{NAMESPACE}:hypermesh-agent",
    *,
    authenticated: bool = True,
    audiences: tuple[str, ...] = AUDIENCES,
    pods: tuple[str, ...] = ("agent-x",),
    nodes: tuple[str, ...] = ("node-1",),
) -> TokenReview:
    extra = {POD_NAME: pods, NODE_NAME: nodes}
    return TokenReview(authenticated, username, "uid", (), extra, audiences, "")


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("hypermesh-agent", Identity(pb.ROLE_NODE, "node-1", "")),
        ("hypermesh-operator", Identity(pb.ROLE_OPERATOR, "hypermesh-operator", "hypermesh-operator")),
        ("hypermesh-ledger", Identity(pb.ROLE_VALIDATOR, "agent-x", "hypermesh-ledger")),
    ],
)
def test_roles(account: str, expected: Identity) -> None:
    assert identify(review(f"system:serviceaccount:{NAMESPACE}:{account}"), NAMESPACE) == expected


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (review(authenticated=False), Reason.TOKEN_INVALID),
        (review(audiences=()), Reason.TOKEN_INVALID),
        (review(audiences=("https://kubernetes.default.svc",)), Reason.TOKEN_INVALID),
        (review(f"system:serviceaccount:{NAMESPACE}:default"), Reason.ACCOUNT_UNKNOWN),
        (review("system:serviceaccount:tenant:hypermesh-agent"), Reason.ACCOUNT_UNKNOWN),
        (review(f"system:serviceaccount:{NAMESPACE}:x:hypermesh-agent"), Reason.ACCOUNT_UNKNOWN),
        (review("hypermesh-agent"), Reason.ACCOUNT_UNKNOWN),
        (review("system:node:node-1"), Reason.ACCOUNT_UNKNOWN),
        (review("kubernetes-admin"), Reason.ACCOUNT_UNKNOWN),
        (review(pods=()), Reason.TOKEN_UNBOUND),
        (review(nodes=()), Reason.TOKEN_UNBOUND),
        (review(nodes=("node-1", "node-2")), Reason.TOKEN_UNBOUND),
        (review(f"system:serviceaccount:{NAMESPACE}:hypermesh-operator", pods=()), Reason.TOKEN_UNBOUND),
    ],
)
def test_refused(subject: TokenReview, reason: Reason) -> None:
    with pytest.raises(EnrolmentRefused) as caught:
        identify(subject, NAMESPACE)
    assert caught.value.reason is reason
    assert ";" in caught.value.message, "a message without a remedy"
