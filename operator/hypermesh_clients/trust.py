"""What everybody must know before trusting anybody: the federation's roots and this cluster's prefix.

Data flow: TrustChain → ConfigMap `hypermesh-trust` (through the API server, whose certificate kubelet gave
us) → `Trust`. Its parts are checked against each other, since the federation id is the hash of the root key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from hypermesh import addressing, falcon
from hypermesh_clients.kube import Kube, KubeError, NotFound
from hypermesh_clients.kube_resources import CONFIG_MAPS

log = logging.getLogger(__name__)

CONFIG_MAP = "hypermesh-trust"
KEK_SECRET = "hypermesh-agent-kek"  # noqa: S105 - the object's name
"""Filled once by TrustChain, read by agents: the cluster's half of the key under which node keys are wrapped."""
KEK_ENTRY = "kek"


class TrustInvalid(Exception):
    """The published trust contradicts itself: somebody other than TrustChain wrote it."""


class TrustNotPublished(Exception):
    """TrustChain hasn't published within the time allowed."""


@dataclass(frozen=True, slots=True)
class Trust:
    """`root_public` 1793 bytes, `ca_pem` the TLS root, `federation` 5 bytes, `prefix` the cluster's /64."""

    root_public: bytes
    ca_pem: bytes
    federation: bytes
    cluster: int
    prefix: IPv6Network
    cluster_uid: str

    def encode(self) -> dict[str, str]:
        """The ConfigMap's data."""
        return {
            "root.pub": base64.b64encode(self.root_public).decode(),
            "ca.crt": self.ca_pem.decode(),
            "federation": self.federation.hex(),
            "cluster": str(self.cluster),
            "prefix": str(self.prefix),
            "clusterUID": self.cluster_uid,
        }

    @classmethod
    def decode(cls, data: Mapping[str, str]) -> Trust:
        """Of the ConfigMap's data. Raises TrustInvalid."""
        try:
            trust = cls(
                root_public=base64.b64decode(data["root.pub"], validate=True),
                ca_pem=data["ca.crt"].encode(),
                federation=bytes.fromhex(data["federation"]),
                cluster=int(data["cluster"]),
                prefix=IPv6Network(data["prefix"]),
                cluster_uid=data["clusterUID"],
            )
            expected = addressing.NetworkPrefix(trust.federation, trust.cluster).network
        except (KeyError, ValueError, binascii.Error) as error:
            raise TrustInvalid(f"ConfigMap {CONFIG_MAP}: {error!r}. Restart hypermesh-trustchain.") from error
        if len(trust.root_public) != falcon.PUBLIC_KEY_BYTES:
            problem = f"root.pub has {len(trust.root_public)} bytes, not {falcon.PUBLIC_KEY_BYTES}"
        elif addressing.federation_id(trust.root_public) != trust.federation:
            problem = "federation isn't the hash of root.pub"
        elif trust.prefix != expected:
            problem = f"prefix {trust.prefix} isn't that of federation and cluster ({expected})"
        else:
            return trust
        raise TrustInvalid(f"ConfigMap {CONFIG_MAP}: {problem}. See who changed it, then restart hypermesh-trustchain.")


async def read_trust(kube: Kube, namespace: str, *, patience: float = 300.0) -> Trust:
    """The published trust, waiting up to `patience` seconds for TrustChain. Raises TrustNotPublished, TrustInvalid.

    Damaged trust is waited out too: TrustChain publishes anew within half a minute.
    """
    deadline = time.monotonic() + patience
    pause, problem = 0.2, ""
    while True:
        invalid: TrustInvalid | None = None
        try:
            data = (await kube.get(CONFIG_MAPS, CONFIG_MAP, namespace)).get("data") or {}
            if data:
                return Trust.decode(data)
            current = "it is still empty"
        except NotFound:
            current = "it doesn't exist"
        except KubeError as error:
            current = str(error)
        except TrustInvalid as error:
            current, invalid = str(error), error
        if current != problem:
            problem = current
            level = logging.WARNING if invalid else logging.INFO
            log.log(level, "waiting for TrustChain's ConfigMap %s/%s: %s", namespace, CONFIG_MAP, problem)
        if time.monotonic() + pause > deadline:
            if invalid:
                raise invalid
            raise TrustNotPublished(
                f"ConfigMap {namespace}/{CONFIG_MAP}: {problem}. See the logs of deployment/hypermesh-trustchain."
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 3.0)
