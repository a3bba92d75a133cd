"""One replica of the operator: wires the parts, waits for leadership, works until cancelled or the lease is lost.

keys, trust -> ledger mirror (standbys keep it warm) -> leadership -> enrolment -> watches, workers, sweep
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import AsyncExitStack
from typing import Final

from hypermesh.resources import OPERATOR_MANAGER
from hypermesh_clients import serving
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_leases import Leadership
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.trust import CONFIG_MAP, Trust, read_trust
from hypermesh_operator import config, identity, metrics
from hypermesh_operator.announcing import Announcer
from hypermesh_operator.attempts import Attempts
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.pool import Pool
from hypermesh_operator.publishing import Publisher
from hypermesh_operator.reconciler import Reconciler, Tools
from hypermesh_operator.signing import Signer
from hypermesh_operator.submitting import Submitter
from hypermesh_operator.sweep import Sweep
from hypermesh_operator.watching import AllocationWatch, MappingWatch, Stopped

_log = logging.getLogger(__name__)

LEASE: Final = "hypermesh-operator"


async def operate(settings: config.Config) -> None:
    """Runs one replica until cancelled. Raises LeadershipLost, KubeError."""
    async with AsyncExitStack() as stack:
        probes = serving.Probes(settings.metrics_port)
        probes.add("started", lambda: "reads its keys")
        await probes.start()
        stack.push_async_callback(probes.stop)
        kube = await stack.enter_async_context(_kube(settings))
        keys = await identity.load(kube, settings.namespace)
        probes.add("started", lambda: f"waits for TrustChain to publish ConfigMap {CONFIG_MAP}")
        trust = await read_trust(kube, settings.namespace, patience=math.inf)
        client = LedgerClient(settings.ledger, trust.ca_pem)
        stack.push_async_callback(client.close)
        mirror = Mirror(client)
        leadership = Leadership(kube, settings.namespace, LEASE, settings.identity)
        place = identity.Place(settings.trustchain, trust.ca_pem, trust.root_public, settings.token_file)
        enrolled = identity.Enrolled(place, keys, client, mirror)
        signer = Signer(keys)
        work = Work(settings, kube, mirror, Submitter(client, mirror, signer), enrolled, trust)
        probes.add("started", lambda: None)
        probes.add("ledger", lambda: _ledger_check(mirror))  # all that a standby needs to be ready
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(mirror.run())
                group.create_task(signer.run())
                await leadership.acquire()
                _log.info("leads as %s", settings.identity)
                metrics.LEADER.set(1)
                group.create_task(leadership.hold())
                work.watched_by(probes)
                await mirror.synced.wait()
                await enrolled.ensure()
                await work.run()
        except* Stopped:
            _log.info("ends: a signal asked for it")


class Work:
    """What the leader does."""

    def __init__(
        self,
        settings: config.Config,
        kube: Kube,
        mirror: Mirror,
        submitter: Submitter,
        enrolled: identity.Enrolled,
        trust: Trust,
    ) -> None:
        self._settings = settings
        self._enrolled = enrolled
        self._inventory = Inventory(trust.cluster_uid)
        pool = Pool(mirror)
        self._announcer = Announcer(kube, settings.identity)
        publisher = Publisher(kube, self._inventory, submitter.keys, trust.ca_pem, self._announcer)
        self._reconciler = Reconciler(
            Tools(
                kube=kube,
                mirror=mirror,
                pool=pool,
                attempts=Attempts(pool, submitter, mirror, trust.cluster_uid, enrolled.doubt),
                submitter=submitter,
                publisher=publisher,
                announcer=self._announcer,
                inventory=self._inventory,
                release_timeout_s=settings.release_timeout_s,
            )
        )
        pool.widened = self._reconciler.widened
        self._allocations = AllocationWatch(kube.connection, self._inventory, self._reconciler)
        self._mappings = MappingWatch(kube, self._inventory, self._reconciler)
        self._sweep = Sweep(kube, mirror, self._inventory, submitter, self._reconciler)

    def watched_by(self, probes: serving.Probes) -> None:
        """The leader's own readiness."""
        probes.add("enrolment", self._enrolled.check)
        probes.add("allocations", self._allocations.check)
        probes.add("proxymappings", self._mappings.check)

    async def run(self) -> None:
        """Until cancelled. What exists of mappings is known before the first Allocation is looked at."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mappings.run())
            await self._mappings.synced.wait()
            group.create_task(self._allocations.run())
            group.create_task(self._reconciler.run(self._settings.workers))
            group.create_task(self._announcer.run())
            group.create_task(self._sweep.run(self._settings.sweep_every_s))
            group.create_task(self._enrolled.run())


def _kube(settings: config.Config) -> Kube:
    if settings.kubeconfig is not None:
        return Kube.from_kubeconfig(settings.kubeconfig, user_agent=OPERATOR_MANAGER)
    return Kube.auto(user_agent=OPERATOR_MANAGER)


def _ledger_check(mirror: Mirror) -> str | None:
    metrics.LEDGER_AGE.set(max(mirror.age(), mirror.stalled_for()))
    return mirror.problem()
