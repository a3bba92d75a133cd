"""The operator between a real API server and a real ledger, for integration tests and benchmarks.

    async with running_mesh(directory) as mesh:
        asset = await mesh.asset(ASSET_TYPE_MEMORY, "mem-0", 64 << 30)
        async with mesh.operator():                      # a real process under the chart's own service account
            await mesh.apply("one", {"type": "memory", "resources": {"memory": "1Gi"}})
            await mesh.until("one", "Ready")

API server, admission policies, RBAC, ledger, proofs and operator are the real ones. There is no node here: what an
agent reports of a mapping is written by `Reports`, under the agent's service account and a token bound to its node.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypermesh import addressing
from hypermesh.conditions import find
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_clients.kube import Kube, KubeError, NotFound, Object
from hypermesh_clients.kube_resources import ALLOCATIONS, CONFIG_MAPS, LEASES, NAMESPACES, SECRETS
from hypermesh_clients.trust import Trust
from hypermesh_operator import identity

from ..api_objects import (
    BINARIES,
    LIMIT_S,
    ROOT,
    SYSTEM,
    bound_token,
    install_chart,
    install_resources,
    kubeconfig,
    until_allocations_taken,
)
from ..builders import CLUSTER_UID, Member, TrustRoot, registration
from ..processes import Started, free_port
from .ledger_fixture import Ledger, patient, running_ledger
from .reports import Reports, report_programmed

sys.path.append(str(ROOT / "hack" / "cluster"))  # last: it must shadow nothing

from local_cluster.private_api import PrivateApi, private_api

__all__ = ["LIMIT_S", "SYSTEM", "TENANT", "Mesh", "report_programmed", "running_mesh"]
TENANT = "team-a"
CHART_PARTS = ("admission.yaml", "agent/rbac.yaml", "keys.yaml", "operator/rbac.yaml")


@dataclass
class Mesh:
    """An API server with CRDs, RBAC and policies, a ledger with an enrolled operator, and nodes."""

    directory: Path
    api: PrivateApi
    kube: Kube
    ledger: Ledger
    signer: Member
    nodes: dict[str, Member] = field(default_factory=dict)
    counter: int = 0

    @property
    def trust(self) -> Trust:
        """As TrustChain would publish it."""
        root = self.ledger.root
        return Trust(
            root_public=root.keypair.public,
            ca_pem=self.ledger.ca_pem,
            federation=root.federation,
            cluster=1,
            prefix=addressing.NetworkPrefix(root.federation, 1).network,
            cluster_uid=CLUSTER_UID,
        )

    # -- ledger ------------------------------------------------------------------------------------------------

    async def node(self, name: str) -> Member:
        """An enrolled node with fresh tickets; its work device is its CPU `cpu-0`."""
        member = await self.ledger.enrol(trust_pb2.ROLE_NODE, name, counter=len(self.nodes))
        self.nodes[name] = member
        await self.prove(name)
        return member

    async def prove(self, name: str) -> None:
        """Fresh tickets."""
        member = self.nodes[name]
        try:
            await self.ledger.win_tickets(member, [self.device(name)])
        except Refused as refused:
            if refused.reason is not Reason.AlreadyProven:
                raise

    def device(self, name: str) -> bytes:
        return self.nodes[name].asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0")

    async def asset(
        self, kind: ledger_pb2.AssetType, hardware_id: str, capacity: int, node: str = "node-1", **terms: Any
    ) -> ledger_pb2.RegisterAsset:
        """A registered asset of a node that is made when it is new. CPU assets are named cpu-0 here."""
        member = self.nodes.get(node) or await self.node(node)
        asset = registration(member, kind, hardware_id, capacity, work_device=self.device(node), **terms)
        return await self.ledger.register(member, asset)

    async def update(self, node: str, asset: ledger_pb2.RegisterAsset, **sharing: Any) -> None:
        """New sharing of a registered asset."""
        record = self.ledger.mirror.assets[asset.asset_id]
        terms = ledger_pb2.Sharing()
        terms.CopyFrom(record.registration.sharing)
        for key, value in sharing.items():
            setattr(terms, key, value)
        member = self.nodes[node]
        tickets = self.ledger.mirror.ticket_refs(member.key_id, asset.work_device, member.key_id)
        update = ledger_pb2.UpdateAsset(
            asset_id=asset.asset_id, revision=record.revision, capacity=record.registration.capacity, sharing=terms
        )
        await self.ledger.submit(member, tickets, update_asset=update)
        await self.ledger.mirror.wait_until(
            lambda: self.ledger.mirror.assets[asset.asset_id].revision > record.revision, LIMIT_S
        )

    async def retire(self, node: str, asset: ledger_pb2.RegisterAsset) -> None:
        """Takes an asset away once nothing of it is held."""
        mirror, member = self.ledger.mirror, self.nodes[node]
        await mirror.wait_until(lambda: self.reserved(asset) == 0, LIMIT_S)
        tickets = mirror.ticket_refs(member.key_id, asset.work_device, member.key_id)
        revision = mirror.assets[asset.asset_id].revision
        await self.ledger.submit(
            member, tickets, retire_asset=ledger_pb2.RetireAsset(asset_id=asset.asset_id, revision=revision)
        )

    def active(self) -> list[ledger_pb2.AllocationRecord]:
        """Active allocations on the ledger."""
        return [
            record
            for record in self.ledger.mirror.allocations.values()
            if record.state == ledger_pb2.ALLOCATION_STATE_ACTIVE
        ]

    def registered(self, name: str) -> ledger_pb2.RegisterAsset:
        """The asset of that name."""
        records = self.ledger.mirror.assets.values()
        return next(record.registration for record in records if record.registration.name == name)

    def reserved(self, asset: ledger_pb2.RegisterAsset) -> int:
        """What the ledger holds of an asset."""
        return self.ledger.mirror.assets[asset.asset_id].reserved

    async def release_all(self) -> None:
        """Whatever is active on the ledger, in the operator's name."""
        for record in self.active():
            tickets = self.ledger.mirror.ticket_refs(record.node, self._device_of(record.node), self.signer.key_id)
            release = ledger_pb2.Release(allocation_id=record.allocation_id)
            with contextlib.suppress(Refused):
                await self.ledger.submit(self.signer, tickets, release=release)
        await self.ledger.mirror.wait_until(lambda: not self.active(), LIMIT_S)

    def _device_of(self, node: bytes) -> bytes:
        return next(self.device(name) for name, member in self.nodes.items() if member.key_id == node)

    # -- Kubernetes --------------------------------------------------------------------------------------------

    async def apply(self, name: str, spec: Object, namespace: str = TENANT) -> Object:
        """An Allocation, as a tenant applies it."""
        return await self.kube.create(ALLOCATIONS, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    async def delete(self, name: str, namespace: str = TENANT) -> None:
        await self.kube.delete(ALLOCATIONS, name, namespace)

    async def status(self, name: str, namespace: str = TENANT) -> Object:
        return dict((await self.kube.get(ALLOCATIONS, name, namespace)).get("status") or {})

    async def until(
        self, name: str, kind: str, reason: str | None = None, *, status: str | None = None, namespace: str = TENANT
    ) -> Object:
        """The status, as soon as the condition is True (or has that reason, or that status)."""
        found: Object = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    found = await self.status(name, namespace)
                    condition = find(found.get("conditions") or (), kind)
                    if condition is not None and _matches(condition, reason, status):
                        return found
                    await asyncio.sleep(0.03)
        except TimeoutError:
            text = f"{namespace}/{name} did not reach {kind} {reason or status or 'True'}; its status is {found}"
            raise AssertionError(text) from None

    async def until_gone(self, name: str, namespace: str = TENANT) -> None:
        """Returns when the Allocation is no more."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    await self.kube.get(ALLOCATIONS, name, namespace)
                except NotFound:
                    return
                await asyncio.sleep(0.03)

    async def agent(self, node: str = "node-1") -> Kube:
        """A client under the service account of that node's agent."""
        bearer = await bound_token(self.kube, "hypermesh-agent", node)
        return Kube.from_kubeconfig(
            kubeconfig(self.api.kubeconfig, self.directory / f"agent-{node}.kubeconfig", bearer)
        )

    @contextlib.asynccontextmanager
    async def reporting(self, *nodes: str) -> AsyncIterator[None]:
        """Every mapping of these nodes is reported as programmed, in the body."""
        async with contextlib.AsyncExitStack() as stack:
            running = []
            for node in nodes or ("node-1",):
                kube = await stack.enter_async_context(await self.agent(node))
                running.append(asyncio.create_task(Reports(kube, node).run()))
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    # -- the operator ------------------------------------------------------------------------------------------

    async def operator_kubeconfig(self) -> Path:
        """Under the operator's own service account: it works with the chart's rights or not at all."""
        bearer = await bound_token(self.kube, "hypermesh-operator", "node-1")
        return kubeconfig(self.api.kubeconfig, self.directory / "operator.kubeconfig", bearer)

    async def spawn(self, **environment: str) -> Started:
        """Starts an operator process."""
        self.counter += 1
        variables = {
            "POD_NAMESPACE": SYSTEM,
            "POD_NAME": f"operator-{self.counter}",
            "HYPERMESH_LEDGER": self.ledger.target,
            "HYPERMESH_TRUSTCHAIN": "[::1]:9",  # the discard port: this operator is enrolled already
            "HYPERMESH_SWEEP_EVERY": "2",
            **environment,
        }
        arguments = ["--kubeconfig", str(await self.operator_kubeconfig())]
        log_file = self.directory / f"operator-{self.counter}.log"
        return Started.start("hypermesh_operator.main", arguments, variables, log_file, free_port())

    async def until_leads(self, operator: Started) -> None:
        """Returns when it is ready as the leader."""
        await operator.until_ready("allocations")

    @contextlib.asynccontextmanager
    async def operator(self, **environment: str) -> AsyncIterator[Started]:
        """A leading operator process, in the body."""
        operator = await self.spawn(**environment)
        try:
            await self.until_leads(operator)
            yield operator
        finally:
            operator.stop()

    async def give_up_lease(self) -> None:
        """After a kill -9: spares the test the wait for the dead one's lease."""
        with contextlib.suppress(KubeError):
            await self.kube.delete(LEASES, "hypermesh-operator", SYSTEM)


def _matches(condition: Any, reason: str | None, status: str | None) -> bool:
    wanted = status or ("True" if reason is None else None)
    return condition["status"] == (wanted or condition["status"]) and condition["reason"] == (
        reason or condition["reason"]
    )


@contextlib.asynccontextmanager
async def running_mesh(directory: Path, proofs: proofs_pb2.ProofParameters | None = None) -> AsyncIterator[Mesh]:
    """All of it, stopped at the end. Unless told otherwise an epoch is an hour: tickets won once last a test run."""
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local directory
    root = TrustRoot()
    with private_api(directory / "api", BINARIES) as api:
        async with (
            running_ledger(directory / "ledger", proofs or patient(), root) as ledger,
            Kube.from_kubeconfig(api.kubeconfig) as kube,
        ):
            for namespace in (SYSTEM, TENANT):
                await kube.apply(NAMESPACES, {"metadata": {"name": namespace}}, field_manager="test")
            await install_resources(kube)
            await install_chart(kube, *CHART_PARTS)
            await until_allocations_taken(kube)
            signer = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
            mesh = Mesh(directory, api, kube, ledger, signer)
            await _publish(mesh)
            yield mesh


async def _publish(mesh: Mesh) -> None:
    """What TrustChain and a former start of the operator leave behind."""
    data = {identity.FALCON_KEY: mesh.signer.keypair.encode(), identity.TOKEN_KEY: os.urandom(32)}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    await mesh.kube.merge_patch(SECRETS, identity.SECRET, {"data": encoded}, SYSTEM)
    await mesh.kube.merge_patch(CONFIG_MAPS, "hypermesh-trust", {"data": mesh.trust.encode()}, SYSTEM)
