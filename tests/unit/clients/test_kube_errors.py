"""Errors by status; paths of resources."""

from __future__ import annotations

from typing import Any

import pytest

from hypermesh_clients.kube_errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Unavailable,
    error_from_status,
)
from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS, NODES, SECRETS
from hypermesh_clients.kube_views import event_body, micro_time


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (404, {"reason": "NotFound"}, NotFound),
        (409, {"reason": "AlreadyExists"}, AlreadyExists),
        (409, {"reason": "Conflict"}, Conflict),
        (409, "plain text of a proxy", Conflict),
        (422, {"reason": "Invalid"}, Invalid),
        (403, {"reason": "Forbidden"}, Forbidden),
        (401, {}, Forbidden),
        (410, {"reason": "Expired"}, Expired),
        (410, {"reason": "Gone"}, Expired),
        (429, {"reason": "TooManyRequests"}, Unavailable),
        (500, {"reason": "InternalError"}, Unavailable),
        (503, "no healthy upstream", Unavailable),
        (504, {"reason": "Timeout"}, Unavailable),
        (418, None, KubeError),
    ],
)
def test_kinds(code: int, body: Any, kind: type[KubeError]) -> None:
    error = error_from_status("Secret a/b", code, body)
    assert type(error) is kind
    assert str(error).startswith("Secret a/b: ")
    assert str(error).endswith(kind.remedy)
    assert error.status == code


def test_retry_after_from_header_or_details() -> None:
    assert error_from_status("x", 429, {}, 3.0).retry_after == 3.0
    assert error_from_status("x", 500, {"details": {"retryAfterSeconds": 7}}).retry_after == 7.0
    assert error_from_status("x", 500, {"details": {}}).retry_after is None


def test_paths() -> None:
    assert NODES.path() == "/api/v1/nodes"
    assert SECRETS.path("ns", "a") == "/api/v1/namespaces/ns/secrets/a"
    assert ALLOCATIONS.path() == "/apis/hypermesh.online/v1alpha1/allocations"
    assert ALLOCATIONS.path("ns", "a", "status").endswith("/namespaces/ns/allocations/a/status")
    assert ASSETS.path(None, "a/../b") == "/apis/hypermesh.online/v1alpha1/assets/a%2F..%2Fb"


def test_micro_time() -> None:
    assert micro_time(1_800_000_000.25) == "2027-01-15T08:00:00.250000Z"


def test_events_of_cluster_scoped_objects_go_to_default() -> None:
    regarding = {"metadata": {"name": "n1", "uid": "u"}}
    options = {"action": "a", "controller": "c", "instance": "i", "warning": False}
    body = event_body(ASSETS, regarding, reason="r", note="n", **options)  # type: ignore[arg-type]
    assert body["metadata"]["namespace"] == "default"
    assert body["regarding"] == {"apiVersion": "hypermesh.online/v1alpha1", "kind": "Asset", "name": "n1", "uid": "u"}
