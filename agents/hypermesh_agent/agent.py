"""The agent, assembled: who it is, then everything that runs side by side until a signal.

    trust -> key -> enrolment -> mirror, survey -> {epochs, registrar, publisher, hot-plug, heartbeat, proxy}

Each part waits for what it needs by itself, so the order in which TrustChain, ledger and API server arrive is free.
When the enrolment is due for renewal all parts end and begin anew with it; kernel state and memory regions stay.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY

from hypermesh_clients.kube import Kube
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.serving import Probes

from .config import AgentConfig
from .directory import AssetDirectory
from .epochs import Epochs
from .hardware import Inventory, Kind
from .heartbeat import beat
from .hotplug import HotPlug
from .identity import NodeIdentity, Papers, obtain
from .membership import keep_enrolled
from .memory.service import FreeMemory, memory_groups
from .metrics import Metrics
from .placing import Placing, sessions
from .proofs.prover import Prover
from .proxy.service import ProxyConfig, ProxyService
from .publisher import Publisher
from .registrar import Registrar
from .renewal import Renewal
from .reserves import NOTHING
from .submitting import Submitter
from .survey import EVERY_KIND, Survey

_log = logging.getLogger(__name__)

GPUS: Final = frozenset({Kind.GPU})
WITHOUT_DRIVERS: Final = EVERY_KIND - GPUS
"""Kinds that are read from files, in milliseconds."""


async def run(config: AgentConfig) -> None:
    """Runs until cancelled."""
    metrics = Metrics(REGISTRY)
    probes = Probes(config.metrics_port)
    probes.add("agent", lambda: "it is starting: no identity yet")
    await probes.start()
    try:
        papers = await obtain(config)
        while True:
            papers = await Agent(config, metrics, probes).run(papers)
            _log.info("the enrolment is renewed")
    finally:
        await probes.stop()


class PartEnded(Exception):
    """A part of the agent returned, which only the agent's own end may make it do."""


async def until_renewed(renewal: Coroutine[Any, Any, Papers], works: Mapping[str, Coroutine[Any, Any, None]]) -> Papers:
    """Runs the parts side by side until there are newer papers. Raises what a part fails with, or PartEnded: either
    ends the agent, and the kubelet starts it anew."""
    renewed = asyncio.create_task(renewal, name="renewal")
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    try:
        done, _ = await asyncio.wait([renewed, *tasks], return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task in done]
        for part in ended:
            part.result()
        if ended:
            names = ", ".join(part.get_name() for part in ended)
            raise PartEnded(f"a part of the agent came to an end by itself: {names}; please report it with this log")
        return renewed.result()
    finally:
        for task in (renewed, *tasks):
            task.cancel()
        await asyncio.gather(renewed, *tasks, return_exceptions=True)


class Agent:
    """One life between two enrolments."""

    def __init__(self, config: AgentConfig, metrics: Metrics, probes: Probes) -> None:
        self._config = config
        self._metrics = metrics
        self._probes = probes
        self._survey = Survey(config.survey)
        self._inventory = Inventory()
        self._gpus_asked = asyncio.Event()

    async def run(self, papers: Papers) -> Papers:
        """Returns the next papers, as soon as they are there."""
        async with AsyncExitStack() as stack:
            kube = await stack.enter_async_context(Kube.auto())
            identity = NodeIdentity.certified(
                self._config.node_name, self._config.node_ip, papers.keypair, papers.certificate
            )
            _log.info(
                "this is node %s of key %s, prefix %s", identity.name, identity.key_id.hex()[:16], identity.prefix
            )
            client = LedgerClient(self._config.ledger, papers.tls.root_pem)
            stack.push_async_callback(client.close)
            return await self._live(kube, client, identity, papers)

    async def _live(self, kube: Kube, client: LedgerClient, identity: NodeIdentity, papers: Papers) -> Papers:
        config, key_id = self._config, identity.key_id
        mirror = Mirror(client, key_id)
        submitter = Submitter(client, mirror, identity.keypair)
        directory = AssetDirectory(identity.name, key_id)
        settings = replace(ProxyConfig.from_environment(os.environ), state=config.state, pool=config.survey.pool)
        memory = FreeMemory(
            mirror, submitter, directory, key_id, config.memory_proof, lambda: memory_groups(settings.cgroup_root)
        )
        proven = config.memory_proof != NOTHING
        registrar = Registrar(
            mirror,
            submitter,
            identity,
            directory,
            sharing=lambda: publisher.sharing(),
            unknown=self._unknown,
            changed=lambda: publisher.wake(),
            **({"offer": memory.offer} if proven else {}),
        )
        publisher = Publisher(
            kube,
            mirror,
            identity,
            directory,
            registrar,
            self._unknown,
            lambda: epochs.reason(),
            lambda: proxy.failure(),
            config.privacy_level,
            self._metrics.wrote,
        )
        prover = Prover(config.state / "plots", key_id)
        epochs = Epochs(mirror, submitter, prover, directory, key_id, config.plot_k)
        proxy = ProxyService(kube, mirror, identity, papers.tls, settings, directory, publisher.wake, memory.make_room)

        def noticed(change: object) -> None:
            registrar.tickets_arrived()
            publisher.wake()

        mirror.subscribe(noticed)
        renewing = Renewal(papers, lambda: obtain(config))
        self._probes.add("enrolment", renewing.check)
        self._checks(mirror, publisher, epochs, proxy)
        make_pool(config.survey.pool)
        await self._look(WITHOUT_DRIVERS, "start", directory, registrar, publisher)
        works = {
            "mirror": mirror.run(),
            "membership": keep_enrolled(mirror, submitter, identity.certificate, key_id),
            "epochs": self._prove(mirror, epochs, key_id),
            "registrar": registrar.run(),
            "publisher": publisher.run(),
            "watch": publisher.follow(),
            "hot-plug": self._plugged(directory, registrar, publisher),
            "survey": self._regularly(directory, registrar, publisher),
            "heartbeat": beat(kube, config.namespace, identity.name, os.environ.get("POD_NAME", "")),
            "proxy": proxy.run(),
        }
        if config.validators:
            tls_name = config.ledger.rpartition(":")[0].strip("[]")
            session = sessions(papers.tls.root_pem, tls_name, identity.keypair, mirror)
            placing = Placing(mirror, key_id, config.validators, session)
            works["place"] = placing.run()
            self._place_metrics(placing)
        if proven:
            works["memory"] = memory.run()
            self._memory_checks(memory)
        return await until_renewed(renewing.next(), works)

    def _checks(self, mirror: Mirror, publisher: Publisher, epochs: Epochs, proxy: ProxyService) -> None:
        self._probes.add("agent", lambda: None)
        self._probes.add("watch", publisher.watch.check)
        self._probes.add("ledger", mirror.problem)
        self._probes.add("proxy", proxy.problem)
        self._metrics.follow("ledger_silence_seconds", "Seconds since the ledger's last word.", mirror.age)
        self._metrics.follow(
            "tickets_late_epochs", "Epochs since the newest tickets; -1 without.", lambda: _late(epochs)
        )
        self._metrics.follow("epoch_seconds", "Time the last proven epoch took.", lambda: epochs.seconds)

    def _memory_checks(self, memory: FreeMemory) -> None:
        self._probes.add("memory", memory.problem)
        self._metrics.follow("memory_wanted_bytes", "Free memory that is to be filled.", memory.wanted)
        self._metrics.follow("memory_filled_bytes", "Free memory that is filled.", memory.filled)
        self._metrics.follow(
            "memory_shown_bytes", "Free memory that valid tickets show, less what was granted since.", memory.shown
        )
        self._metrics.follow(
            "memory_given_back_bytes",
            "Filled memory given back as the machine ran short, since the filling began.",
            memory.given_back,
        )

    def _place_metrics(self, placing: Placing) -> None:
        self._metrics.follow("place_validators", "Ledgers that measured this node lately.", placing.validators)
        self._metrics.follow(
            "place_nearest_seconds", "Smallest round trip that one of them told; 0 without any.", placing.nearest_s
        )

    async def _prove(self, mirror: Mirror, epochs: Epochs, key_id: bytes) -> None:
        """Proving needs the node's record, for the ledger refuses a stranger's proofs, and every device's name."""
        await self._gpus_asked.wait()
        await mirror.synced.wait()
        while key_id not in mirror.nodes:
            try:
                await mirror.wait_until(lambda: key_id in mirror.nodes, 60)
            except TimeoutError:
                _log.warning("waiting for the node's record on the ledger")
        await epochs.run()

    async def _plugged(self, directory: AssetDirectory, registrar: Registrar, publisher: Publisher) -> None:
        async with HotPlug() as plug:
            async for kinds in plug:
                await self._look(kinds, "hotplug", directory, registrar, publisher)

    async def _regularly(self, directory: AssetDirectory, registrar: Registrar, publisher: Publisher) -> None:
        """First the GPUs, whose drivers may be slow; then, again and again, what changes without an event."""
        await self._look(GPUS, "start", directory, registrar, publisher)
        self._gpus_asked.set()
        while True:
            await asyncio.sleep(self._config.survey_seconds)
            kinds = EVERY_KIND if self._survey.gpus_expected else WITHOUT_DRIVERS
            await self._look(kinds, "time", directory, registrar, publisher)

    def _unknown(self) -> frozenset[Kind]:
        return self._inventory.unknown

    async def _look(
        self,
        kinds: frozenset[Kind],
        cause: str,
        directory: AssetDirectory,
        registrar: Registrar,
        publisher: Publisher,
    ) -> None:
        self._inventory = await self._survey.run(kinds)
        self._metrics.surveyed(self._inventory, cause)
        directory.replace(self._inventory.hardware)
        registrar.wake()
        publisher.wake()


def make_pool(pool: Path | None) -> None:
    """Before the first survey, which would find nothing to give in a directory that is not there yet."""
    try:
        if pool is not None:
            pool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.error("the storage pool %s can't be made: %s; no storage is given", pool, error.strerror or error)


def _late(epochs: Epochs) -> float:
    late = epochs.lateness()
    return -1.0 if late is None else float(late)
