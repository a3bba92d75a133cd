"""Routes to the other nodes' /88 prefixes, and the local one for our own.

Kubernetes Nodes (name -> IPv6 address) x ledger's node records (certificate -> name, prefix) -> wanted routes
    -> difference to the kernel's -> set; looked at again regularly, drift repaired and counted
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Any, Final

from prometheus_client import Counter, Gauge

from hypermesh import addressing, certificates, falcon
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.proxy.routes import Route, RouteError, RouteTable, plan
from hypermesh_clients.kube import Kube, WatchType
from hypermesh_clients.kube_resources import NODES

_log = logging.getLogger(__name__)

Records = Callable[[], Mapping[bytes, ledger_pb2.NodeRecord]]

_SETTLE_S: Final = 0.05
ROUTE_DRIFT: Final = Counter(
    "hypermesh_agent_route_drift_repaired_total", "Routes that others changed and the agent repaired"
)
ROUTES_FAILING: Final = Gauge("hypermesh_agent_routes_failing", "Prefixes of peers that could not be routed")


class Peers:
    """`run` it; `notice` when the ledger's node records changed. own: our /88; address: this node's."""

    def __init__(self, kube: Kube, table: RouteTable, node_name: str, own: IPv6Network, address: IPv6Address) -> None:
        self.watch = kube.watch(NODES)
        self._table = table
        self._node_name = node_name
        self._own = Route(own, None, address)
        self._addresses: dict[str, IPv6Address] = {}
        self._wanted: dict[IPv6Network, Route] = {own: self._own}
        self._failing: dict[IPv6Network, str] = {}
        self._changed = asyncio.Event()

    async def own_route(self) -> None:
        """The local route alone, before anything else: mappings on this node work without peers. Raises RouteError."""
        await asyncio.to_thread(self._table.add, self._own)

    def notice(self) -> None:
        """Something that routes follow from has changed."""
        self._changed.set()

    async def run(self, records: Records, root_public: bytes, cluster_uid: str, every_s: float) -> None:
        """Follows until cancelled. `records` gives the ledger's current node records."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._keep(records, root_public, cluster_uid, every_s))

    async def _follow(self) -> None:
        async for event in self.watch:
            if event.type is WatchType.SYNCED:
                self.notice()
                continue
            name = event.object["metadata"]["name"]
            address = None if event.type is WatchType.DELETED else node_address(event.object)
            if self._addresses.get(name) != address:
                if address is None:
                    del self._addresses[name]
                else:
                    self._addresses[name] = address
                self.notice()

    async def _keep(self, records: Records, root_public: bytes, cluster_uid: str, every_s: float) -> None:
        while True:
            changed = True
            try:
                async with asyncio.timeout(every_s):
                    await self._changed.wait()
            except TimeoutError:
                changed = False
            else:
                await asyncio.sleep(_SETTLE_S)
                self._changed.clear()
            if self.watch.synced.is_set():
                prefixes = peer_prefixes(records().values(), root_public, cluster_uid)
                self._wanted = routes(self._own, self._node_name, prefixes, self._addresses)
                try:
                    await self.reconcile(expected=changed)
                except OSError as error:
                    _log.error("the routing table can't be read: %s", error)

    async def reconcile(self, *, expected: bool) -> int:
        """Makes the kernel's routes the wanted ones; returns how many differed, and counts them unless `expected`."""
        actual = await asyncio.to_thread(self._table.read)
        remove, add = plan(self._wanted, actual)
        drift = [route for route in add if route.prefix not in self._failing]
        if (remove or drift) and not expected:
            ROUTE_DRIFT.inc(len({route.prefix for route in [*remove, *drift]}))
            _log.warning("repairing %d routes that were not as wanted", len({r.prefix for r in [*remove, *drift]}))
        for route in remove:
            await self._attempt(self._table.remove, route)
        for route in add:
            await self._attempt(self._table.add, route)
        ROUTES_FAILING.set(len(self._failing))
        return len({route.prefix for route in [*remove, *add]})

    async def _attempt(self, deed: Callable[[Route], None], route: Route) -> None:
        try:
            await asyncio.to_thread(deed, route)
        except RouteError as error:
            if self._failing.get(route.prefix) != str(error):
                _log.warning("%s", error)
            self._failing[route.prefix] = str(error)
        else:
            self._failing.pop(route.prefix, None)


def node_address(node: Mapping[str, Any]) -> IPv6Address | None:
    """The first IPv6 InternalIP of a Kubernetes Node."""
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry.get("type") == "InternalIP" and ":" in entry.get("address", ""):
            return IPv6Address(entry["address"])
    return None


def peer_prefixes(
    records: Iterable[ledger_pb2.NodeRecord], root_public: bytes, cluster_uid: str
) -> dict[str, IPv6Network]:
    """Node name -> /88 of the nodes of this cluster whose certificate leads to the root; of two, the newer one's."""
    bodies: dict[str, trust_pb2.CertificateBody] = {}
    for record in records:
        body = _certified(record.certificate.SerializeToString(deterministic=True), root_public)
        if body is None or body.role != trust_pb2.ROLE_NODE or body.cluster_uid != cluster_uid:
            continue
        if body.subject not in bodies or bodies[body.subject].not_before < body.not_before:
            bodies[body.subject] = body
    return {
        name: addressing.node_prefix(body.federation, body.cluster, falcon.key_id(body.subject_key), body.node_counter)
        for name, body in bodies.items()
    }


def routes(
    own: Route, own_name: str, prefixes: Mapping[str, IPv6Network], addresses: Mapping[str, IPv6Address]
) -> dict[IPv6Network, Route]:
    """The routes that should be: our own local one, and one for each peer whose address is known."""
    wanted = {own.prefix: own}
    for name, prefix in prefixes.items():
        if name != own_name and prefix != own.prefix and name in addresses:
            wanted[prefix] = Route(prefix, addresses[name])
    return wanted


@lru_cache(maxsize=4096)
def _certified(certificate: bytes, root_public: bytes) -> trust_pb2.CertificateBody | None:
    """The body when the root signed it. A route is no permission, so the age of the certificate does not matter."""
    parsed = trust_pb2.Certificate.FromString(certificate)
    try:
        return certificates.verify(parsed, root_public, certificates.decode(parsed).not_before)
    except certificates.CertificateInvalid:
        return None
