"""The objects that the operator writes for a grant, as server-side apply takes them, and the tenant's token; pure.

The token is made from the operator's token key and the allocation id, so that a restarted operator makes the same one;
the ledger holds only its hash, and the node compares hashes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from hypermesh.conditions import from_milliseconds, timestamp
from hypermesh.resources import (
    ACCESS_SECRET_TYPE,
    API_VERSION,
    FINALIZER,
    NODE_LABEL,
    access_secret_name,
    node_label,
)
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.statuses import Names, Status


def token(token_key: bytes, allocation_id: bytes) -> str:
    """The capability of one allocation: base64url text (no padding) of 32 bytes."""
    return base64.urlsafe_b64encode(hmac.digest(token_key, allocation_id, "sha256")).rstrip(b"=").decode()


def capability_hash(token_text: str) -> bytes:
    """What the ledger records of a token: SHA-256 of its text."""
    return hashlib.sha256(token_text.encode()).digest()


def with_finalizer(allocation: Allocation) -> dict[str, Any]:
    """Our finalizer on exactly this object, by server-side apply; others' finalizers stay."""
    return {"metadata": {**allocation.metadata, "finalizers": [FINALIZER]}}


def without_finalizer(allocation: Allocation) -> dict[str, Any]:
    """A merge patch that takes our finalizer away, whoever put it there, from exactly this version."""
    others = [name for name in allocation.finalizers if name != FINALIZER]
    return {"metadata": {"resourceVersion": str(allocation.version), "finalizers": others}}


def status(allocation: Allocation, wanted: Status) -> dict[str, Any]:
    """A merge patch that makes `wanted` the status of exactly this object, which nobody else writes.

    Server-side apply would come to the same and costs the API server half as much again.
    """
    gone = dict.fromkeys(key for key in allocation.status if key not in wanted)
    return {"metadata": {"uid": allocation.uid}, "status": {**wanted, **gone}}


def access_secret(allocation: Allocation, grant: Grant, token_text: str, ca_pem: bytes) -> dict[str, Any]:
    """What the tenant mounts: token, address, port and the certificate authority of the nodes."""
    values = {
        "address": grant.address.encode(),
        "ca.crt": ca_pem,
        "port": str(grant.port).encode(),
        "token": token_text.encode(),
    }
    return {
        "metadata": _metadata(allocation, access_secret_name(allocation.name), {}),
        "type": ACCESS_SECRET_TYPE,
        "data": {key: base64.b64encode(value).decode() for key, value in values.items()},
    }


def proxy_mapping(allocation: Allocation, grant: Grant, names: Names) -> dict[str, Any]:
    """The grant for its node's agent and for people."""
    return {
        "metadata": _metadata(allocation, allocation.name, {NODE_LABEL: node_label(names.node)}),
        "spec": {
            "address": grant.address,
            "allocationID": grant.allocation_id.hex(),
            "allocationName": allocation.name,
            "assetName": names.asset,
            "leaseExpirationTime": timestamp(from_milliseconds(grant.expires_ms)),
            "ledgerHeight": grant.height,
            "nodeName": names.node,
            "port": grant.port,
            "protocol": "TCP",
            "transactionHash": grant.tx_hash.hex(),
        },
    }


def _metadata(allocation: Allocation, name: str, labels: dict[str, str]) -> dict[str, Any]:
    owner = {"apiVersion": API_VERSION, "kind": "Allocation", "name": allocation.name, "uid": allocation.uid}
    metadata: dict[str, Any] = {"name": name, "namespace": allocation.namespace, "ownerReferences": [owner]}
    return {**metadata, "labels": labels} if labels else metadata
