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
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / "build" / "bin"
sys.path.append(str(ROOT / "hack" / "cluster"))  # last: it must shadow nothing

from local_cluster.private_api import PrivateApi, private_api  # noqa: E402

from hypermesh import addressing  # noqa: E402
from hypermesh.conditions import Condition, find, merge, timestamp  # noqa: E402
from hypermesh.proofs import parameters  # noqa: E402
from hypermesh.refusals import Reason, Refused  # noqa: E402
from hypermesh.resources import AGENT_MANAGER  # noqa: E402
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2  # noqa: E402
from hypermesh_clients.kube import Kube, KubeError, NotFound, Object, Resource, WatchType  # noqa: E402
from hypermesh_clients.kube_resources import (  # noqa: E402
    ALLOCATIONS,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    PODS,
    PROXY_MAPPINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from hypermesh_clients.trust import Trust  # noqa: E402
from hypermesh_operator import identity  # noqa: E402

from ..builders import CLUSTER_UID, Member, TrustRoot, registration  # noqa: E402
from .ledger_fixture import Ledger, free_port, running_ledger  # noqa: E402

SYSTEM = "hypermesh-system"
TENANT = "team-a"
LIMIT_S = 60.0
RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"
POLICIES = Resource(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
KINDS = {
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": Resource(RBAC, "v1", "roles", "Role"),
    "RoleBinding": Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
    "ClusterRole": Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    "MutatingAdmissionPolicy": Resource(
        ADMISSION, "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", namespaced=False
    ),
    "MutatingAdmissionPolicyBinding": Resource(
        ADMISSION, "v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", namespaced=False
    ),
    "ValidatingAdmissionPolicy": POLICIES,
    "ValidatingAdmissionPolicyBinding": Resource(
        ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
    ),
}
CHART_PARTS = ("admission.yaml", "agent/rbac.yaml", "keys.yaml", "operator/rbac.yaml")


# -- the cluster's side ----------------------------------------------------------------------------------------------


async def install_resources(kube: Kube) -> None:
    """The CRDs of this checkout, served when this returns."""
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        manifest = yaml.safe_load(file.read_text())
        await kube.apply(CUSTOM_RESOURCE_DEFINITIONS, manifest, field_manager="test")
        name = manifest["metadata"]["name"]
        async with asyncio.timeout(LIMIT_S):
            while not _established(await kube.get(CUSTOM_RESOURCE_DEFINITIONS, name)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def _established(crd: Object) -> bool:
    condition = find((crd.get("status") or {}).get("conditions") or (), "Established")
    return condition is not None and condition["status"] == "True"


async def install_chart(kube: Kube, *parts: str) -> None:
    """Parts of the chart as helm renders them, in the namespace SYSTEM."""
    command = [str(BINARIES / "helm"), "template", "hypermesh", str(ROOT / "charts/hypermesh"), "--namespace", SYSTEM]
    command += [f"--show-only=templates/{part}" for part in parts]
    command += [f"--api-versions={ADMISSION}/v1/MutatingAdmissionPolicy"]  # as helm finds it on this server
    rendered = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    for manifest in yaml.safe_load_all(rendered.stdout):
        if manifest:
            await kube.apply(KINDS[manifest["kind"]], manifest, field_manager="helm")


async def bound_token(kube: Kube, account: str, node: str, namespace: str = SYSTEM) -> str:
    """A token of the service account as kubelet projects it: bound to a new pod on that node."""
    await kube.apply(NODES, {"metadata": {"name": node}}, field_manager="test")
    await kube.apply(SERVICE_ACCOUNTS, {"metadata": {"name": account, "namespace": namespace}}, field_manager="test")
    pod = await kube.create(
        PODS,
        {
            "metadata": {"name": f"{account}-{uuid.uuid4().hex[:8]}", "namespace": namespace},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "nodeName": node,
                "containers": [{"name": "main", "image": "main"}],
            },
        },
    )
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    return await token(kube, account, namespace, reference)


async def token(kube: Kube, account: str, namespace: str = SYSTEM, bound_to: Object | None = None) -> str:
    """A token of the service account for the API server, bound or not."""
    spec: Object = {"expirationSeconds": 7200}
    if bound_to is not None:
        spec["boundObjectRef"] = bound_to
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await kube.create(SERVICE_ACCOUNTS, request, namespace, name=account, subresource="token")
    return str(answer["status"]["token"])


def kubeconfig(api: PrivateApi, directory: Path, name: str, bearer: str) -> Path:
    """A kubeconfig file for a bearer token."""
    authority = directory / "api" / "certificates" / "ca.crt"
    cluster = {"server": api.url, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": bearer}}],
    }
    file = directory / f"{name}.kubeconfig"
    file.write_text(json.dumps(content))
    return file


# -- the node's side -------------------------------------------------------------------------------------------------


class Reports:
    """Writes what a node's agent would: every ProxyMapping of the node is Programmed. `run` beside a test."""

    def __init__(self, kube: Kube, node: str) -> None:
        self._kube = kube
        self._selector = f"hypermesh.online/node={node}"
        self.written = 0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for event in self._kube.watch(PROXY_MAPPINGS, label_selector=self._selector):
                if event.type is WatchType.ADDED and not (event.object.get("status") or {}).get("conditions"):
                    group.create_task(self._write(event.object))

    async def _write(self, mapping: Object) -> None:
        with contextlib.suppress(NotFound):
            await report_programmed(self._kube, mapping)
            self.written += 1


async def report_programmed(kube: Kube, mapping: Object) -> None:
    """The report on one mapping."""
    metadata = mapping["metadata"]
    said = [Condition("Programmed", "True", "ReadBack", "The kernel holds the translation.")]
    now = datetime.now(UTC)
    status = {
        "conditions": merge((), said, metadata.get("generation", 1), now),
        "observed": {"programmedTime": timestamp(now), "targetAddress": "fd00::1", "targetPort": 7443},
    }
    await kube.merge_patch(
        PROXY_MAPPINGS,
        metadata["name"],
        {"status": status},
        metadata["namespace"],
        subresource="status",
        field_manager=AGENT_MANAGER,
    )


def _matches(condition: Any, reason: str | None, status: str | None) -> bool:
    wanted = status or ("True" if reason is None else None)
    return condition["status"] == (wanted or condition["status"]) and condition["reason"] == (
        reason or condition["reason"]
    )


# -- all of it -------------------------------------------------------------------------------------------------------


@dataclass
class Operator:
    """A running operator process."""

    process: subprocess.Popen[bytes]
    probes: int
    log_file: Path

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def rss(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the operator is gone")

    def log(self) -> str:
        """Everything it logged."""
        return self.log_file.read_text(errors="replace")

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of one of its HTTP endpoints; 0 when nobody answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://[::1]:{self.probes}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


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
        return Kube.from_kubeconfig(kubeconfig(self.api, self.directory, f"agent-{node}", bearer))

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
        return kubeconfig(self.api, self.directory, "operator", bearer)

    async def spawn(self, **environment: str) -> Operator:
        """Starts an operator process."""
        self.counter += 1
        config, probes = await self.operator_kubeconfig(), free_port()
        log_file = self.directory / f"operator-{self.counter}.log"
        variables = {
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "POD_NAMESPACE": SYSTEM,
            "POD_NAME": f"operator-{self.counter}",
            "HYPERMESH_LEDGER": self.ledger.target,
            "HYPERMESH_TRUSTCHAIN": "[::1]:9",  # the discard port: this operator is enrolled already
            "HYPERMESH_METRICS_PORT": str(probes),
            "HYPERMESH_SWEEP_EVERY": "2",
            **environment,
        }
        command = [sys.executable, "-P", "-m", "hypermesh_operator.main", "--kubeconfig", str(config)]
        with log_file.open("ab") as output:
            process = subprocess.Popen(command, env=variables, cwd=self.directory, stdout=output, stderr=output)  # noqa: ASYNC220
        return Operator(process, probes, log_file)

    async def until_leads(self, operator: Operator) -> None:
        """Returns when it is ready as the leader."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                status, text = await asyncio.to_thread(operator.probe, "/readyz")
                if status == 200 and "allocations" in text:
                    return
                if operator.process.poll() is not None:
                    raise AssertionError(f"the operator ended:\n{operator.log()[-4000:]}")
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def operator(self, **environment: str) -> AsyncIterator[Operator]:
        """A leading operator process, in the body."""
        operator = await self.spawn(**environment)
        try:
            await self.until_leads(operator)
            yield operator
        finally:
            operator.stop()

    async def give_up_lease(self) -> None:
        """After a kill -9: spares the test the wait for the dead one's lease."""
        from hypermesh_clients.kube_resources import LEASES

        with contextlib.suppress(KubeError):
            await self.kube.delete(LEASES, "hypermesh-operator", SYSTEM)


@contextlib.asynccontextmanager
async def running_mesh(directory: Path, proofs: proofs_pb2.ProofParameters | None = None) -> AsyncIterator[Mesh]:
    """All of it, stopped at the end. Unless told otherwise an epoch is an hour: tickets won once last a test run."""
    if proofs is None:
        proofs = proofs_pb2.ProofParameters()
        proofs.CopyFrom(parameters.DEMO)
        proofs.epoch_ms = 3_600_000
    directory.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a local directory
    root = TrustRoot()
    with private_api(directory / "api", BINARIES) as api:
        async with (
            running_ledger(directory / "ledger", proofs, root) as ledger,
            Kube.from_kubeconfig(api.kubeconfig) as kube,
        ):
            for namespace in (SYSTEM, TENANT):
                await kube.apply(NAMESPACES, {"metadata": {"name": namespace}}, field_manager="test")
            await install_resources(kube)
            await install_chart(kube, *CHART_PARTS)
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
