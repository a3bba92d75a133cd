"""The proxy part of the agent, assembled: from committed allocations to addresses that answer.

    mirror's changes -> pipeline: verify, enforce, program many at once, read back -> ProxyMapping status
    beside it: routes to peers, the resource service, an audit of the table every few seconds

A restart takes over the kernel's table and the regions of the run before; established connections do not notice.
Nothing of the kernel's is removed at the end: see removal.py for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from ipaddress import IPv6Address
from typing import Final

from hypermesh import falcon
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.directory import AssetDirectory
from hypermesh_agent.enforcement.enforcer import Enforcer
from hypermesh_agent.enforcement.grants import EnforcementFailed
from hypermesh_agent.enforcement.populator import Populator
from hypermesh_agent.enforcement.regions import MakeRoom, no_room_made
from hypermesh_agent.identity import NodeIdentity, TlsIdentity
from hypermesh_agent.proxy.allocations import Keeper
from hypermesh_agent.proxy.config import ProxyConfig
from hypermesh_agent.proxy.kernel import NetlinkKernel
from hypermesh_agent.proxy.peers import Peers
from hypermesh_agent.proxy.pipeline import Pipeline
from hypermesh_agent.proxy.programming import Programmer, ProgrammingFailed
from hypermesh_agent.proxy.reports import Reporter
from hypermesh_agent.proxy.routes import RouteTable
from hypermesh_agent.proxy.verification import Standpoint
from hypermesh_agent.serving.authorization import Desk
from hypermesh_agent.serving.server import ResourceServer
from hypermesh_clients.kube import Kube
from hypermesh_clients.mirror import Mirror

__all__ = ["ProxyConfig", "ProxyService"]

_log = logging.getLogger(__name__)

_START_RETRY_S: Final = 2.0


class _NotYet(Exception):
    """Something the start needs is not there yet; the message is shown and it is tried again."""


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors themselves, out of groups in groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


class ProxyService:
    """`run` until cancelled; may be run again by a new instance in the same process."""

    def __init__(
        self,
        kube: Kube,
        mirror: Mirror,
        node: NodeIdentity,
        tls: TlsIdentity,
        config: ProxyConfig,
        assets: AssetDirectory,
        changed: Callable[[], None] = lambda: None,
        make_room: MakeRoom = no_room_made,
    ) -> None:
        self._mirror = mirror
        self._node = node
        self._tls = tls
        self._config = config
        self._assets = assets
        self._kube = kube
        self._changed = changed
        self._make_room = make_room
        self._live_once = False
        self._failure: str | None = None

    def problem(self) -> str | None:
        """A readiness check: None when addresses of this node can be used, else what is waited for."""
        return self._failure or (None if self._live_once else "the proxy waits for the ledger's first copy")

    def failure(self) -> str | None:
        """What keeps addresses of this node from being used; None also while the start merely takes its time.

        `changed` is called when it comes and when it goes.
        """
        return self._failure

    def _fails(self, failure: str | None) -> None:
        if failure != self._failure:
            self._failure = failure
            if failure is not None:
                _log.error("the proxy does not work: %s", failure)
            self._changed()

    async def run(self) -> None:
        """Waits for what it needs, takes over what an earlier run left, then keeps everything as the ledger says."""
        await self._mirror.synced.wait()
        while True:
            try:
                async with AsyncExitStack() as stack:
                    await self._live(stack)
            except* (_NotYet, OSError, EnforcementFailed, ProgrammingFailed) as errors:
                self._fails("; ".join(dict.fromkeys(str(error) for error in leaves(errors))))
            await asyncio.sleep(_START_RETRY_S)

    async def _live(self, stack: AsyncExitStack) -> None:
        node, config = self._node, self._config
        here = self._standpoint()
        address = IPv6Address(node.ip)
        kernel, table = NetlinkKernel(), RouteTable()
        stack.callback(kernel.close)
        stack.callback(table.close)
        populator = Populator()
        stack.push_async_callback(populator.close)
        enforcer = Enforcer.open(config.state, config.pool, config.cgroup_root, populator, self._make_room)
        desk = Desk(node.name, node.prefix)
        stack.callback(desk.clear)
        server = ResourceServer(desk, self._tls, node.ip, config.port)
        port = server.bind()  # callers wait in the socket's queue until `start`, when every address is known
        stack.push_async_callback(server.stop)
        keeper = Keeper(self._mirror, here, enforcer, desk, self._assets, node.name, (address.packed, port))
        programmer = Programmer(kernel, node.prefix)
        reporter = Reporter(self._kube, node.name, self._mirror)
        pipeline = Pipeline(keeper, programmer, reporter.tell, node.name)
        peers = Peers(self._kube, table, node.name, node.prefix, address)
        await peers.own_route()

        active = ledger_pb2.ALLOCATION_STATE_ACTIVE
        enforcer.clean(record.allocation_id.hex() for record in keeper.records() if record.state == active)
        await pipeline.take_over()
        await server.start()
        stack.callback(self._mirror.subscribe(_Listener(node.key_id, keeper, pipeline, reporter, peers)))
        self._live_once = True
        self._fails(None)
        _log.info("proxy addresses in %s answer at [%s]:%d", node.prefix, address, port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pipeline.run(), name="pipeline")
            group.create_task(reporter.run(), name="reports")
            group.create_task(self._audit(programmer), name="audit")
            group.create_task(
                peers.run(lambda: self._mirror.nodes, here.root_public, node.cluster_uid, config.audit_seconds),
                name="routes",
            )

    async def _audit(self, programmer: Programmer) -> None:
        while True:
            await asyncio.sleep(self._config.audit_seconds)
            try:
                await programmer.audit()
                self._fails(None)
            except ProgrammingFailed as error:
                self._fails(str(error))

    def _standpoint(self) -> Standpoint:
        """Who this node is and whom it trusts: the root that signed its own certificate. Raises _NotYet."""
        node, genesis = self._node, self._mirror.genesis
        issuer = trust_pb2.CertificateBody.FromString(node.certificate.body).issuer
        if falcon.key_id(genesis.root_public_key) != issuer:
            raise _NotYet(
                f"the ledger's root key is not the one that certified node {node.name}; "
                "check that ledger and TrustChain belong to one installation"
            )
        return Standpoint(
            chain_id=self._mirror.chain_id,
            key_id=node.key_id,
            prefix=node.prefix,
            federation=node.federation,
            cluster=node.cluster,
            counter=node.counter,
            cluster_uid=node.cluster_uid,
            root_public=genesis.root_public_key,
            minimum_trust=self._config.minimum_trust,
        )


class _Listener:
    """Passes the mirror's changes on to whom they concern; returns at once."""

    def __init__(self, key_id: bytes, keeper: Keeper, pipeline: Pipeline, reporter: Reporter, peers: Peers) -> None:
        self._key_id = key_id
        self._keeper = keeper
        self._pipeline = pipeline
        self._reporter = reporter
        self._peers = peers

    def __call__(self, change: ledger_pb2.Change) -> None:
        match change.WhichOneof("record"):
            case "allocation":
                if change.allocation.node == self._key_id:
                    self._pipeline.mark(change.allocation.allocation_id)
            case "allocation_gone":
                self._reporter.forget(change.allocation_gone)
                self._keeper.forget(change.allocation_gone)
                self._pipeline.mark(change.allocation_gone)
            case "node":
                self._peers.notice()
                self._pipeline.mark_failed()
            case "asset":
                self._pipeline.mark_failed()
            case "block":
                self._reporter.reconsider()
