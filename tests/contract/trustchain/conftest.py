"""TrustChain as the chart installs it: its own service account and RBAC, a real process, real pod tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hypermesh_clients.kube import Kube, Object
from hypermesh_clients.kube_resources import NAMESPACES

from ...api_objects import install_chart, kubeconfig, pod_of, token
from ...processes import Started, free_port

AUDIENCE = "hypermesh-trustchain"


@dataclass
class Install:
    """A namespace with what the chart puts there for TrustChain, and the means to run it and to be its clients."""

    kube: Kube
    server: Any
    namespace: str
    directory: Path
    started: list[Started] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    probes: int = field(default_factory=free_port)

    @property
    def target(self) -> str:
        return f"[::1]:{self.port}"

    @property
    def server_name(self) -> str:
        return f"hypermesh-trustchain.{self.namespace}.svc"

    async def apply_chart(self) -> None:
        """The chart's own RBAC and empty keys; cluster-wide names get the namespace added, as tests share a server."""
        await self.kube.create(NAMESPACES, {"metadata": {"name": self.namespace}})
        parts = ("trustchain/rbac.yaml", "keys.yaml")
        await install_chart(self.kube, *parts, namespace=self.namespace, change=self._apart)

    def _apart(self, manifest: Object) -> None:
        if manifest["kind"].startswith("Cluster"):
            manifest["metadata"]["name"] += f"-{self.namespace}"
        if manifest["kind"] == "ClusterRoleBinding":
            manifest["roleRef"]["name"] += f"-{self.namespace}"

    async def token(
        self, account: str, pod: Object | None, *, audience: str | None = AUDIENCE, namespace: str | None = None
    ) -> str:
        """A token as kubelet projects it: for one audience (None: the API server), bound to the pod."""
        return await token(self.kube, account, namespace or self.namespace, pod, audience=audience, seconds=600)

    async def pod(self, account: str, *, namespace: str | None = None, node: str | None = None) -> Object:
        """A pod of the service account, on a node of its own (named, else new)."""
        node = node or f"node-{uuid.uuid4().hex[:8]}"
        return await pod_of(self.kube, account, node, namespace or self.namespace)

    async def token_file(self, account: str = "hypermesh-agent", **options: Any) -> tuple[Path, Object]:
        """A file with a projected-style token of a new pod, and the pod."""
        pod = await self.pod(account, **options)
        file = self.directory / f"token-{pod['metadata']['name']}"
        file.write_text(await self.token(account, pod))
        return file, pod

    async def kubeconfig(self) -> Path:
        """A kubeconfig of TrustChain's own service account: it works with the chart's rights or not at all."""
        pod = await self.pod("hypermesh-trustchain")
        bearer = await self.token("hypermesh-trustchain", pod, audience=None)
        return kubeconfig(self.server.kubeconfig, self.directory / "trustchain.kubeconfig", bearer)

    async def spawn(self) -> subprocess.Popen[bytes]:
        """Starts the process, whose ports stay the same over restarts."""
        environment = {"KUBECONFIG": str(await self.kubeconfig()), "POD_NAMESPACE": self.namespace}
        arguments, log_file = ["--listen", f"[::1]:{self.port}"], self.directory / "trustchain.log"
        self.started.append(Started.start("hypermesh_trustchain.main", arguments, environment, log_file, self.probes))
        return self.started[-1].process

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.started[-1].log().splitlines()]

    def probe(self, path: str) -> tuple[int, str]:
        return self.started[-1].probe(path)

    async def ready(self) -> None:
        text = await self.started[-1].until_ready()
        assert "[+] root" in text
        assert "[+] trust" in text

    def kill(self) -> None:
        self.started[-1].kill()

    def stop(self) -> None:
        for started in self.started:
            started.stop()


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
