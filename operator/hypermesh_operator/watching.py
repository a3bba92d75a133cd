"""What is watched: Allocations through kopf, ProxyMappings by our own lean watch; both fill the reconciler's queue.

Of kopf we use the watch streams, their recovery and the login, and raw event handlers only: its change handlers keep
their progress in annotations of every object and retry by touching it, while our keys also come from the ledger and
from the nodes. See docs/decisions/0005-operator.md.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import kopf

from hypermesh.quantities import QuantityInvalid
from hypermesh.resources import GROUP, VERSION
from hypermesh_clients.kube import Kube, Watch, WatchType
from hypermesh_clients.kube_config import Connection
from hypermesh_clients.kube_resources import ALLOCATIONS, PROXY_MAPPINGS
from hypermesh_operator.connecting import StreamEar, session
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.reconciler import Reconciler

_log = logging.getLogger(__name__)

QUIET_S: Final = 90.0
"""The API server sends a bookmark about every minute; a stream that is quiet for longer is dead."""


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf compares every version of every object with the last it handled; we never ask what changed."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf's settings, in one place."""
    settings.peering.standalone = True
    # Not ours: kopf takes away its finalizer from objects that none of its own handlers needs it for.
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.posting.enabled = False
    settings.posting.level = logging.WARNING
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.queueing.idle_timeout = 0.5  # a worker's memory is kept for as long


class Stopped(Exception):
    """A signal asked the process to end."""


class AllocationWatch:
    """kopf, with nothing but an ear for Allocations."""

    def __init__(self, connection: Connection, inventory: Inventory, reconciler: Reconciler) -> None:
        self._connection = connection
        self._inventory = inventory
        self._reconciler = reconciler
        self._ear = StreamEar(ALLOCATIONS.plural)
        self.started = asyncio.Event()

    def check(self) -> str | None:
        """Readiness: whether the stream spoke lately."""
        age = self._ear.age()
        return None if age < QUIET_S else f"nothing heard for {age:.0f} s"

    async def run(self) -> None:
        """Watches until cancelled. Raises Stopped at SIGTERM or SIGINT, whose handlers kopf takes for itself."""
        logging.getLogger("kopf").setLevel(logging.WARNING)
        settings = kopf.OperatorSettings()
        configure(settings)
        await kopf.operator(registry=self._registry(), settings=settings, clusterwide=True, ready_flag=self.started)
        raise Stopped

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return session(self._connection, self._ear)

        @kopf.on.event(GROUP, VERSION, ALLOCATIONS.plural, registry=registry)
        async def changed(event: Any, **_: Any) -> None:
            self._changed(event["type"], event["object"])

        return registry

    def _changed(self, kind: str | None, body: dict[str, Any]) -> None:
        uid = body["metadata"]["uid"]
        if kind == "DELETED":
            self._inventory.lose(uid)
            self._reconciler.gone(uid)
            return
        try:
            self._inventory.see(body)
        except (QuantityInvalid, KeyError) as error:
            name = f"{body['metadata'].get('namespace')}/{body['metadata'].get('name')}"
            _log.error("Allocation %s is unreadable (%s): delete it and apply a corrected one", name, error)
            return
        self._reconciler.touch(uid)


class MappingWatch:
    """ProxyMappings of the whole cluster: what their nodes report."""

    def __init__(self, kube: Kube, inventory: Inventory, reconciler: Reconciler) -> None:
        self._watch: Watch = kube.watch(PROXY_MAPPINGS)
        self._inventory = inventory
        self._reconciler = reconciler

    @property
    def synced(self) -> asyncio.Event:
        """Set once everything existing has been seen."""
        return self._watch.synced

    def check(self) -> str | None:
        """Readiness: whether the stream spoke lately."""
        return self._watch.check(QUIET_S)

    async def run(self) -> None:
        """Watches until cancelled."""
        async for event in self._watch:
            match event.type:
                case WatchType.SYNCED:
                    continue
                case WatchType.DELETED:
                    lost = self._inventory.lose_mapping(event.object)
                    owner = lost.owner if lost is not None else ""
                case _:
                    owner = self._inventory.see_mapping(event.object).owner
            if owner:
                self._reconciler.advance(owner)
