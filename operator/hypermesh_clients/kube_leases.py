"""Leases of coordination.k8s.io: a node's heartbeat, and leadership of one replica among several.

A heartbeat has one writer, so server-side apply is enough. Leadership has rivals, so every write carries
the resource version it was decided on; the loser gets Conflict and waits. Clocks of rivals are never
compared: a rival's lease is over when *we* have seen it unchanged for its duration (as client-go does).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hypermesh_clients.kube import Kube, micro_time
from hypermesh_clients.kube_errors import AlreadyExists, Conflict, KubeError, NotFound, Unavailable
from hypermesh_clients.kube_resources import LEASES, Object


class LeadershipLost(Exception):
    """Another holder has the lease, or it couldn't be renewed in time: stop acting at once."""


async def heartbeat(
    kube: Kube,
    namespace: str,
    name: str,
    *,
    holder: str,
    duration: int,
    field_manager: str,
    owner: Object | None = None,
    labels: dict[str, str] | None = None,
) -> None:
    """Says `holder` lives; good for `duration` seconds. `owner` is an ownerReference that collects the lease."""
    metadata: Object = {"name": name, "namespace": namespace}
    if owner:
        metadata["ownerReferences"] = [owner]
    if labels:
        metadata["labels"] = labels
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": micro_time()}
    await kube.apply(LEASES, {"metadata": metadata, "spec": spec}, field_manager=field_manager)


class Leadership:
    """One candidate for a lease. `await acquire()`, then run `hold()` beside the work until it raises."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: int = 15,
        renew_every: float = 5.0,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._renew_every = renew_every
        self._renewed = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)  # resource version of the rival's lease, when first seen

    def check(self) -> str | None:
        """A readiness check: None while the lease is ours."""
        if time.monotonic() - self._renewed < self._duration:
            return None
        return f"lease {self._namespace}/{self._name}: held by another replica; this one stands by"

    async def acquire(self) -> None:
        """Waits, for as long as it takes, until the lease is ours. API errors are waited out."""
        while True:
            try:
                if await self._try():
                    return
            except KubeError:
                pass  # the server's absence is no reason to give up candidacy; requests log themselves
            await asyncio.sleep(min(self._renew_every, 2.0))

    async def hold(self) -> None:
        """Renews until cancelled (then releases) or lost. Raises LeadershipLost."""
        try:
            while True:
                await asyncio.sleep(self._renew_every)
                try:
                    held = await asyncio.wait_for(self._try(), self._duration - self._renew_every)
                except (Unavailable, TimeoutError):
                    held = True  # unknown: ours until its duration has passed
                if not held or time.monotonic() - self._renewed >= self._duration:
                    raise LeadershipLost(f"lease {self._namespace}/{self._name} is no longer held by {self._identity}")
        finally:
            await self._release()

    async def _try(self) -> bool:
        now = time.monotonic()
        try:
            lease = await self._kube.get(LEASES, self._name, self._namespace)
        except NotFound:
            return await self._create(now)
        spec: dict[str, Any] = lease.get("spec") or {}
        version = lease["metadata"]["resourceVersion"]
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity:
            if self._seen[0] != version:
                self._seen = (version, now)
            if now - self._seen[1] < (spec.get("leaseDurationSeconds") or self._duration):
                return False
        renewed: Object = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "renewTime": micro_time(),
        }
        if holder != self._identity:
            renewed |= {
                "acquireTime": micro_time(),
                "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1,
            }
        try:
            await self._kube.merge_patch(
                LEASES,
                self._name,
                {"metadata": {"resourceVersion": version}, "spec": renewed},
                self._namespace,
            )
        except (Conflict, NotFound):
            return False
        self._renewed = now
        return True

    async def _create(self, now: float) -> bool:
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": micro_time(),
            "renewTime": micro_time(),
            "leaseTransitions": 0,
        }
        body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}
        try:
            await self._kube.create(LEASES, body)
        except AlreadyExists:
            return False
        self._renewed = now
        return True

    async def _release(self) -> None:
        """Lets a rival take over at once instead of after the duration; best effort."""
        if time.monotonic() - self._renewed >= self._duration:
            return
        self._renewed = float("-inf")
        try:
            lease = await asyncio.wait_for(self._kube.get(LEASES, self._name, self._namespace), 2)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                version = lease["metadata"]["resourceVersion"]
                patch = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": ""}}
                await asyncio.wait_for(self._kube.merge_patch(LEASES, self._name, patch, self._namespace), 2)
        except (KubeError, TimeoutError):
            return
