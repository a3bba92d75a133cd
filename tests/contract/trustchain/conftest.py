"""TrustChain as the chart installs it: its own service account and RBAC, a real process, real pod tokens."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hypermesh_clients.kube import Kube, Object
from hypermesh_clients.kube_resources import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 60.0
AUDIENCE = "hypermesh-trustchain"
RBAC = "rbac.authorization.k8s.io"
RENDERED = {
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": Resource(RBAC, "v1", "roles", "Role"),
    "RoleBinding": Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
    "ClusterRole": Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
}


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Install:
    """A namespace with what the chart puts there for TrustChain, and the means to run it and to be its clients."""

    kube: Kube
    server: Any
    namespace: str
    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    port: int = 0
    probes: int = 0

    @property
    def target(self) -> str:
        return f"[::1]:{self.port}"

    @property
    def server_name(self) -> str:
        return f"hypermesh-trustchain.{self.namespace}.svc"

    async def apply_chart(self) -> None:
        """The chart's own RBAC and empty keys; cluster-wide names get the namespace added, as tests share a server."""
        await self.kube.create(NAMESPACES, {"metadata": {"name": self.namespace}})
        shown = ("templates/trustchain/rbac.yaml", "templates/keys.yaml")
        command = [str(ROOT / "build/bin/helm"), "template", "hypermesh", str(ROOT / "charts/hypermesh")]
        command += ["--namespace", self.namespace, *(f"--show-only={name}" for name in shown)]
        rendered = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
        for manifest in yaml.safe_load_all(rendered.stdout):
            if not manifest:
                continue
            if manifest["kind"].startswith("Cluster"):
                manifest["metadata"]["name"] += f"-{self.namespace}"
            if manifest["kind"] == "ClusterRoleBinding":
                manifest["roleRef"]["name"] += f"-{self.namespace}"
            await self.kube.apply(RENDERED[manifest["kind"]], manifest, field_manager="helm")

    async def token(
        self,
        account: str,
        pod: Object | None,
        *,
        audience: str | None = AUDIENCE,
        namespace: str | None = None,
    ) -> str:
        """A token as kubelet projects it: for one audience (None: the API server), bound to the pod."""
        spec: dict[str, Any] = {"expirationSeconds": 600}
        if audience:
            spec["audiences"] = [audience]
        if pod:
            metadata = pod["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        answer = await self.kube.create(
            SERVICE_ACCOUNTS,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            namespace or self.namespace,
            name=account,
            subresource="token",
        )
        return str(answer["status"]["token"])

    async def account(self, name: str, namespace: str | None = None) -> None:
        body = {"metadata": {"name": name, "namespace": namespace or self.namespace}}
        await self.kube.apply(SERVICE_ACCOUNTS, body, field_manager="test")

    async def pod(self, account: str, *, namespace: str | None = None, node: str | None = None) -> Object:
        """A pod of the service account, on a node of its own (named, else new)."""
        unique = uuid.uuid4().hex[:8]
        node = node or f"node-{unique}"
        await self.kube.apply(NODES, {"metadata": {"name": node}}, field_manager="test")
        await self.account(account, namespace)
        body = {
            "metadata": {"name": f"{account}-{unique}", "namespace": namespace or self.namespace},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "nodeName": node,
                "containers": [{"name": "main", "image": "main"}],
            },
        }
        return await self.kube.create(PODS, body)

    async def token_file(self, account: str = "hypermesh-agent", **options: Any) -> tuple[Path, Object]:
        """A file with a projected-style token of a new pod, and the pod."""
        pod = await self.pod(account, **options)
        file = self.directory / f"token-{pod['metadata']['name']}"
        file.write_text(await self.token(account, pod))
        return file, pod

    async def kubeconfig(self) -> Path:
        """A kubeconfig of TrustChain's own service account: it works with the chart's rights or not at all."""
        pod = await self.pod("hypermesh-trustchain")
        token = await self.token("hypermesh-trustchain", pod, audience=None)
        file = self.directory / "trustchain.kubeconfig"
        cluster = {
            "server": self.server.url,
            "certificate-authority-data": base64.b64encode(self.server.authority.read_bytes()).decode(),
        }
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        file.write_text(json.dumps(content))
        return file

    async def spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process, whose ports stay the same over restarts."""
        config = await self.kubeconfig()
        self.port, self.probes = self.port or free_port(), self.probes or free_port()
        environment = {
            **os.environ,
            "KUBECONFIG": str(config),
            "POD_NAMESPACE": self.namespace,
            "HYPERMESH_METRICS_PORT": str(self.probes),
            "PYTHONSAFEPATH": "1",
        }
        log = self.directory / "trustchain.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - forking takes a millisecond
                [sys.executable, "-m", "hypermesh_trustchain.main", "--listen", f"[::1]:{self.port}"],
                env=environment,
                cwd=self.directory,
                stdout=output,
                stderr=output,
            )
        self.processes.append(process)
        return process

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "trustchain.log").read_text().splitlines()]

    def probe(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://[::1]:{self.probes}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    async def ready(self) -> None:
        status, text = 0, ""
        async with asyncio.timeout(LIMIT):
            while status != 200:
                assert self.processes[-1].poll() is None, self.log()[-3:]
                status, text = await asyncio.to_thread(self.probe, "/readyz")
                await asyncio.sleep(0.1)
        assert "[+] root" in text
        assert "[+] trust" in text

    def kill(self) -> None:
        self.processes[-1].kill()
        self.processes[-1].wait(10)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)


@contextlib.asynccontextmanager
async def _installed(server: Any, directory: Path) -> AsyncIterator[Install]:
    async with Kube.from_kubeconfig(server.kubeconfig) as kube:
        install = Install(kube, server, f"hm-{uuid.uuid4().hex[:8]}", directory)
        try:
            await install.apply_chart()
            yield install
        finally:
            install.stop()


async def _start(server: Any, directory: Path) -> Install:
    async with Kube.from_kubeconfig(server.kubeconfig) as kube:
        install = Install(kube, server, f"hm-{uuid.uuid4().hex[:8]}", directory)
        try:
            await install.apply_chart()
            await install.spawn()
            await install.ready()
        except BaseException:
            install.stop()
            raise
        return install


@pytest.fixture(scope="module")
def running(api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """One process for a module's tests; its `kube` is closed, take `install`."""
    install = asyncio.run(_start(api_server, tmp_path_factory.mktemp("trustchain")))
    yield install
    install.stop()


@pytest.fixture
async def install(running: Install) -> AsyncIterator[Install]:
    """TrustChain running and ready, shared by the module."""
    async with Kube.from_kubeconfig(running.server.kubeconfig) as kube:
        yield replace(running, kube=kube)


@pytest.fixture
async def bare(api_server: Any, tmp_path: Path) -> AsyncIterator[Install]:
    """What the chart installs, for this test alone; TrustChain not started."""
    async with _installed(api_server, tmp_path) as install:
        yield install


@pytest.fixture
async def own_install(own_api_server: Any, tmp_path: Path) -> AsyncIterator[Install]:
    """TrustChain running on an API server that the test may kill."""
    async with _installed(own_api_server, tmp_path) as install:
        await install.spawn()
        await install.ready()
        yield install
