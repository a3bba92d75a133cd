"""Keeps ConfigMap `hypermesh-trust` saying what the root says.

Published again every `EVERY` seconds, which changes nothing when nothing changed, repairs what somebody
edited, and tells readiness that the API server is there.
"""

from __future__ import annotations

import asyncio
import logging
import time

from hypermesh_clients.kube import Kube, KubeError, NotFound
from hypermesh_clients.kube_resources import CONFIG_MAPS
from hypermesh_clients.trust import CONFIG_MAP, Trust

log = logging.getLogger(__name__)

FIELD_MANAGER = "hypermesh-trustchain"
EVERY = 30.0


class FederationMismatch(Exception):
    """The published trust is of another federation than our root."""


class Publisher:
    """Publishes one `Trust`."""

    def __init__(self, kube: Kube, namespace: str, trust: Trust) -> None:
        self._kube = kube
        self._namespace = namespace
        self._trust = trust
        self._published: float | None = None
        self._problem = "not tried yet"

    def check(self) -> str | None:
        """A readiness check: None when published within the last three rounds."""
        if self._published is not None and time.monotonic() - self._published < 3 * EVERY:
            return None
        return f"ConfigMap {self._namespace}/{CONFIG_MAP} isn't published: {self._problem}"

    async def publish(self) -> None:
        """Once. Raises FederationMismatch when nodes already trust another root, and KubeErrors."""
        try:
            present = (await self._kube.get(CONFIG_MAPS, CONFIG_MAP, self._namespace)).get("data") or {}
        except NotFound:
            present = {}
        federation = self._trust.federation.hex()
        if present.get("federation", federation) != federation:
            raise FederationMismatch(
                f"ConfigMap {self._namespace}/{CONFIG_MAP} is of federation {present['federation']}, the root in the "
                f"Secret of {federation}: restore the Secret from a backup, or empty the ConfigMap (kubectl patch "
                f'configmap {CONFIG_MAP} --type=json -p \'[{{"op":"remove","path":"/data"}}]\') to begin a new '
                "federation, which every node must then join anew"
            )
        body = {"metadata": {"name": CONFIG_MAP, "namespace": self._namespace}, "data": self._trust.encode()}
        await self._kube.apply(CONFIG_MAPS, body, field_manager=FIELD_MANAGER)
        self._published = time.monotonic()

    async def run(self) -> None:
        """Publishes for ever. Raises FederationMismatch; waits out the API server's absence."""
        while True:
            try:
                await self.publish()
            except KubeError as error:
                self._problem = str(error)
                log.warning("%s", error)
            await asyncio.sleep(EVERY if self.check() is None else 2.0)
