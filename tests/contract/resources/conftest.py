"""A private API server with this checkout's CRDs, and one that also has the chart's policies and accounts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import NAMESPACES

from ...api_objects import BINARIES, LIMIT_S, ROOT, SYSTEM, install_chart, install_resources
from ...integration.operator_fixture import CHART_PARTS, TENANT, PrivateApi, private_api
from .kubectl import Kubectl


@dataclass(frozen=True)
class Served:
    """An API server of ours and its administrator's kubectl."""

    directory: Path
    api: PrivateApi
    kubectl: Kubectl

    def kube(self) -> Kube:
        """A client of the administrator."""
        return Kube.from_kubeconfig(self.api.kubeconfig)


async def _prepare(api: PrivateApi, *chart: str) -> None:
    async with Kube.from_kubeconfig(api.kubeconfig) as kube:
        for namespace in (SYSTEM, TENANT):
            await kube.apply(NAMESPACES, {"metadata": {"name": namespace}}, field_manager="test")
        await install_resources(kube)
        if chart:
            await install_chart(kube, *chart)


def _served(directory: Path, *chart: str) -> Iterator[Served]:
    with private_api(directory / "api", BINARIES) as api:
        asyncio.run(_prepare(api, *chart))
        yield Served(directory, api, Kubectl(api.kubeconfig))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """CRDs only."""
    yield from _served(tmp_path_factory.mktemp("resources"))


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """CRDs, the chart's admission policies, and the accounts and rights of agent and operator."""
    for served in _served(tmp_path_factory.mktemp("guarded"), *CHART_PARTS):
        _until_enforced(served)
        yield served


def _until_enforced(served: Served) -> None:
    """The API server compiles policies once a second: waits for one to act, and one more round for the others."""
    sample = str(ROOT / "samples" / "proxymapping.yaml")
    deadline = time.monotonic() + LIMIT_S
    while served.kubectl.run("apply", "--dry-run=server", "-f", sample).returncode == 0:
        assert time.monotonic() < deadline, "the admission policies are not enforced"
        time.sleep(0.2)
    time.sleep(1.5)


@pytest.fixture(scope="session")
def kubectl(served: Served) -> Kubectl:
    """The administrator's, where only the CRDs stand in the way."""
    return served.kubectl
