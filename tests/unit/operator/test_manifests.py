"""What the operator writes names its owner, and the token can be made again from the key and the id."""

from __future__ import annotations

import base64
import hashlib

from hypermesh_operator import manifests, objects
from hypermesh_operator.statuses import Names

from .worlds import GRANT, ID, UID, allocation


def test_token_is_the_same_for_the_same_key_and_id_only() -> None:
    token = manifests.token(b"k" * 32, ID)
    assert token == manifests.token(b"k" * 32, ID)
    assert token != manifests.token(b"l" * 32, ID)
    assert token != manifests.token(b"k" * 32, ID[::-1])
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    assert manifests.capability_hash(token) == hashlib.sha256(token.encode()).digest()


def test_secret_holds_what_a_tenant_needs() -> None:
    body = manifests.access_secret(allocation(), GRANT, "token", b"PEM")
    data = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
    assert data == {"address": GRANT.address, "ca.crt": "PEM", "port": "7443", "token": "token"}
    assert body["type"] == "hypermesh.online/access"
    assert body["metadata"]["name"] == "scratch-access"
    assert [owner["uid"] for owner in body["metadata"]["ownerReferences"]] == [UID]


def test_mapping_says_what_the_ledger_said() -> None:
    body = manifests.proxy_mapping(allocation(), GRANT, Names("asset", "node-1"))
    assert body["metadata"]["labels"] == {"hypermesh.online/node": "node-1"}
    long = manifests.proxy_mapping(allocation(), GRANT, Names("asset", "n" * 253))
    assert len(long["metadata"]["labels"]["hypermesh.online/node"]) == 63
    assert long["spec"]["nodeName"] == "n" * 253
    spec = body["spec"]
    assert (spec["allocationID"], spec["transactionHash"]) == (ID.hex(), GRANT.tx_hash.hex())
    assert (spec["address"], spec["port"], spec["ledgerHeight"]) == (GRANT.address, 7443, 42)
    assert spec["leaseExpirationTime"] == "2026-11-22T19:00:00Z"
    uids = {"metadata": {**body["metadata"], "uid": "m", "resourceVersion": "3"}, "spec": spec}
    assert objects.mapping(uids).owner == UID


def test_finalizer_names_exactly_this_object_and_spares_others() -> None:
    metadata = manifests.with_finalizer(allocation())["metadata"]
    assert (metadata["uid"], metadata["finalizers"]) == (UID, ["hypermesh.online/release"])
    held = allocation(finalizers=("other/one", "hypermesh.online/release", "other/two"))
    patch = manifests.without_finalizer(held)
    assert patch == {"metadata": {"resourceVersion": "7", "finalizers": ["other/one", "other/two"]}}


def test_status_leaves_nothing_of_the_former_one() -> None:
    before = allocation(status={"nodeName": "old", "granted": {"memory": "1Gi"}})
    patch = manifests.status(before, {"nodeName": "new"})
    assert patch == {"metadata": {"uid": UID}, "status": {"nodeName": "new", "granted": None}}
