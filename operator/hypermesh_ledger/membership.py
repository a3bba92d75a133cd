"""Membership by Kubernetes and TrustChain: root key from the ConfigMap, TLS certificate by enrolment.

A lone ledger's own Falcon key signs nothing but its enrolment, so it is made at each start and never stored; that of a
ledger with peers also speaks for its seat among the validators, and is kept (see candidacy). The TLS key that it gets a
certificate for stays in memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypermesh import falcon
from hypermesh_clients.enrolment import Enrolment, EnrolmentRefused, TrustChainUnavailable, enrol
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.trust import Trust, read_trust
from hypermesh_ledger.errors import TrustUnavailable, TrustUnusable
from hypermesh_ledger.federation import Identity

_log = logging.getLogger(__name__)

RETRY_S: Final = 30.0
PATIENCE_S: Final = 60.0
"""Longest time until an attempt to renew tells what it waits for."""


@dataclass(frozen=True, slots=True)
class TrustChain:
    """Where and as whom to enrol."""

    namespace: str
    target: str
    token_file: Path


class Membership:
    """A Federation, made by `join`."""

    def __init__(self, trust: Trust, trustchain: TrustChain, keypair: falcon.KeyPair, enrolment: Enrolment) -> None:
        self.root_public = trust.root_public
        self.ca_pem = trust.ca_pem
        self._trust = trust
        self._trustchain = trustchain
        self._keypair = keypair
        self._enrolment = enrolment
        self._problem = "TrustChain was not asked yet"

    def identity(self) -> Identity:
        """See Federation."""
        return Identity(self._keypair, self._enrolment.certificate)

    def check(self) -> str | None:
        """See Federation."""
        if time.time() < self._enrolment.body.not_after:
            return None
        return f"the TLS certificate ended and is not renewed: {self._problem}"

    def pair(self) -> tuple[bytes, bytes]:
        """See Federation."""
        return self._enrolment.tls_key, self._enrolment.tls_chain

    async def renew(self) -> None:
        """See Federation. A failure is logged and tried again; the old certificate lasts a while."""
        while True:
            await asyncio.sleep(max(RETRY_S, self._enrolment.renew_at - time.time()))
            try:
                self._enrolment = await _enrol(self._trust, self._trustchain, self._keypair, PATIENCE_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, the present certificate lasts days longer
                self._problem = str(error)
                _log.warning("TLS certificate not renewed yet: %s", error)


async def join(trustchain: TrustChain, keypair: falcon.KeyPair | None = None) -> Membership:
    """Wait for TrustChain, however long it takes to start, and enrol (a new key, unless one is given).

    Raises TrustUnusable when it says no, TrustUnavailable for what passes.
    """
    try:
        async with Kube.auto(user_agent="hypermesh-ledger") as kube:
            trust = await read_trust(kube, trustchain.namespace, patience=math.inf)
        keypair = keypair or falcon.generate()
        enrolment = await _enrol(trust, trustchain, keypair, math.inf)
    except (ConfigError, EnrolmentRefused) as error:
        raise TrustUnusable(f"The ledger can't join its federation: {error}") from error
    except (TrustChainUnavailable, KubeError, OSError) as error:
        raise TrustUnavailable(f"The ledger can't join its federation yet: {error}") from error
    return Membership(trust, trustchain, keypair, enrolment)


async def _enrol(trust: Trust, trustchain: TrustChain, keypair: falcon.KeyPair, patience: float) -> Enrolment:
    return await enrol(
        trustchain.target,
        trust.ca_pem,
        keypair,
        trustchain.token_file,
        root_public=trust.root_public,
        patience=patience,
    )
