"""Secrets that the chart makes empty and their owner fills once.

Our processes may get and patch their own Secret but create none, so that a stolen token can't plant others.
Filling carries the resource version of the emptiness that was seen: of two starters exactly one wins, and
both go on with the winner's content.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from hypermesh_clients.kube import Conflict, Kube, Object
from hypermesh_clients.kube_resources import SECRETS


def contents(secret: Object) -> dict[str, bytes]:
    """The decoded `data` of a Secret object."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """`data` as a Secret carries it."""
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


async def fill_once(
    kube: Kube, namespace: str, name: str, key: str, make: Callable[[], Mapping[str, bytes]]
) -> dict[str, bytes]:
    """The Secret's content; when it has no `key` yet, fills it with `make()` first (called only then).

    Safe among rivals. Raises NotFound when the chart's empty Secret is missing, and other KubeErrors.
    """
    while True:
        secret = await kube.get(SECRETS, name, namespace)
        data = contents(secret)
        if key in data:
            return data
        patch = {"metadata": {"resourceVersion": secret["metadata"]["resourceVersion"]}, "data": encoded(make())}
        try:
            return contents(await kube.merge_patch(SECRETS, name, patch, namespace))
        except Conflict:
            continue  # somebody wrote in between: look again
