"""Each policy alone, then the chain: which asset, or which sentence."""

from __future__ import annotations

from typing import Any

import pytest

from hypermesh.v1 import ledger_pb2
from hypermesh_operator.policies import fit, kind, price, privacy, proof, trust
from hypermesh_operator.policies.chain import Choice, NoneFits, choose
from hypermesh_operator.policies.model import Offer, Policy, Request, hourly_cost

from .worlds import ELSEWHERE, GI, PRIVATE, PUBLIC, offer, request

VERIFIED = ledger_pb2.PRIVACY_LEVEL_VERIFIED
TEAM_B = frozenset({"team-b"})


@pytest.mark.parametrize(
    ("policy", "asked", "offered", "refused"),
    [
        (fit.POLICY, request(), offer(free=GI), False),
        (fit.POLICY, request(), offer(free=GI - 1), True),
        (kind.POLICY, request(), offer(type="cpu"), True),
        (proof.POLICY, request(), offer(proven=False), True),
        (proof.POLICY, request(), offer(), False),
        (trust.POLICY, request(min_trust=5000), offer(trust=5000), False),
        (trust.POLICY, request(min_trust=5001), offer(trust=5000), True),
        (price.POLICY, request(), offer(price=10**30), False),
        (price.POLICY, request(max_price=1), offer(price=8), False),
        (price.POLICY, request(max_price=1), offer(price=9), True),
        (price.POLICY, request(max_price=0), offer(price=0), False),
        (privacy.POLICY, request(), offer(), False),
        (privacy.POLICY, request(), offer(paused=True), True),
        (privacy.POLICY, request(), offer(cluster_uid=ELSEWHERE), True),
        (privacy.POLICY, request(), offer(owner_namespaces=TEAM_B), True),
        (privacy.POLICY, request(namespace="team-b"), offer(owner_namespaces=TEAM_B), False),
        (privacy.POLICY, request(), offer(privacy_level=PUBLIC), False),
        (privacy.POLICY, request(), offer(privacy_level=PUBLIC, cluster_uid=ELSEWHERE), True),
        (privacy.POLICY, request(privacy_level=PUBLIC), offer(privacy_level=PUBLIC, cluster_uid=ELSEWHERE), False),
        (privacy.POLICY, request(privacy_level=PUBLIC), offer(privacy_level=PRIVATE), True),
        (privacy.POLICY, request(privacy_level=PUBLIC), offer(privacy_level=VERIFIED), True),
        (privacy.POLICY, request(privacy_level=VERIFIED), offer(privacy_level=VERIFIED), False),
    ],
)
def test_policy(policy: Policy, asked: Request, offered: Offer, refused: bool) -> None:
    assert policy.refuses(asked, offered) is refused


def test_cost_of_a_share_is_rounded_up_as_the_ledger_does() -> None:
    assert hourly_cost(request(amount=1), offer(capacity=3, price=10).candidate) == 4
    assert hourly_cost(request(amount=3), offer(capacity=3, price=10).candidate) == 10


def sentence(asked: Request, *offers: Offer) -> str:
    outcome = choose(asked, offers)
    assert isinstance(outcome, NoneFits)
    return outcome.message


@pytest.mark.parametrize(
    ("asked", "offers", "expected"),
    [
        (request(), (), "no memory asset is registered on the ledger; see kubectl get assets"),
        (
            request(asset_name="gone"),
            (),
            "no memory asset named gone is registered on the ledger; see kubectl get assets",
        ),
        (
            request(amount=2 * GI),
            (offer(free=GI), offer(free=0), offer(cluster_uid=ELSEWHERE)),
            "no memory asset fits: 2 too small (largest free 1Gi), 1 private to others",
        ),
        (
            request(asset_name="node-1-cpu-1"),
            (offer(type="cpu"),),
            "asset node-1-cpu-1 does not fit: it is a cpu asset (ask for type: cpu and cores)",
        ),
        (
            request(privacy_level=PUBLIC),
            (offer(), offer(privacy_level=VERIFIED), offer(privacy_level=PUBLIC, paused=True)),
            "no memory asset fits: 1 paused by the owner, 1 shared as Private, 1 shared as Verified",
        ),
        (
            request(min_trust=9000),
            (offer(trust=4000), offer(trust=100)),
            "no memory asset fits: 2 below trust score 90 (highest 40)",
        ),
        (
            request(max_price=10**17),
            (offer(price=8 * 10**18), offer(price=4 * 10**18)),
            "no memory asset fits: 2 dearer than 0.1 Caesar an hour (cheapest 0.5)",
        ),
        (
            request(),
            (offer(proven=False), offer(proven=False, node_name="node-2")),
            "no memory asset fits: 2 without fresh proofs (nodes node-1, node-2)",
        ),
    ],
)
def test_sentence(asked: Request, offers: tuple[Offer, ...], expected: str) -> None:
    assert sentence(asked, *offers) == expected


def chosen(asked: Request, *offers: Offer) -> Any:
    outcome = choose(asked, offers)
    assert isinstance(outcome, Choice)
    return outcome.offer.candidate


def test_the_cheapest_wins_then_the_emptiest_then_the_lowest_id() -> None:
    cheap, dear = offer(asset_id=b"\2" * 32, price=1), offer(asset_id=b"\1" * 32, price=80)
    assert chosen(request(), dear, cheap).asset_id == b"\2" * 32
    full, empty = offer(free=2 * GI, asset_id=b"\1" * 32), offer(free=6 * GI, asset_id=b"\2" * 32)
    assert chosen(request(), full, empty).asset_id == b"\2" * 32
    first, second = offer(asset_id=b"\1" * 32), offer(asset_id=b"\2" * 32)
    assert chosen(request(), second, first).asset_id == b"\1" * 32
