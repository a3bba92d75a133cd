"""Small typed views and bodies of API objects that several processes read or write; no input or output."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from hypermesh_clients.kube_resources import Object, Resource


@dataclass(frozen=True, slots=True)
class TokenReview:
    """What the API server says about a bearer token. `extra` holds pod and node bindings (KEP-4193)."""

    authenticated: bool
    username: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]
    audiences: tuple[str, ...]
    error: str

    @classmethod
    def from_object(cls, review: Object) -> TokenReview:
        """Of the answered TokenReview object."""
        status = review.get("status") or {}
        user = status.get("user") or {}
        return cls(
            authenticated=status.get("authenticated") is True,
            username=str(user.get("username", "")),
            uid=str(user.get("uid", "")),
            groups=tuple(user.get("groups") or ()),
            extra={key: tuple(values) for key, values in (user.get("extra") or {}).items()},
            audiences=tuple(status.get("audiences") or ()),
            error=str(status.get("error", "")),
        )


def micro_time(seconds: float | None = None) -> str:
    """`metav1.MicroTime` text of Unix `seconds` (default: now)."""
    seconds = time.time() if seconds is None else seconds
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e6):06d}Z"


def event_body(
    resource: Resource,
    regarding: Object,
    *,
    reason: str,
    note: str,
    action: str,
    controller: str,
    instance: str,
    warning: bool,
) -> Object:
    """An events.k8s.io/v1 Event on `regarding`, in its namespace (cluster-scoped: `default`, as kubectl expects)."""
    metadata = regarding["metadata"]
    copied = {key: metadata[key] for key in ("namespace", "uid", "resourceVersion") if metadata.get(key)}
    return {
        "metadata": {
            "name": f"{metadata['name'][:200]}.{time.time_ns():x}",  # as client-go names them
            "namespace": metadata.get("namespace") or "default",
        },
        "eventTime": micro_time(),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "action": action,
        "note": note[:1000],
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": metadata["name"],
            **copied,
        },
        "reportingController": controller,
        "reportingInstance": instance[:128],
    }
