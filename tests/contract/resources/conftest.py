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

LAST_POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: last}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  matchConditions: [{name: named, expression: object.metadata.name == "refused"}]
  validations: [{expression: "false"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: last}
spec: {policyName: last, validationActions: [Deny]}
"""


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
    """The API server takes up policies once a second and in order: when the one made last acts, all before it do."""
    served.kubectl("apply", "-f", "-", stdin=LAST_POLICY)
    sample = str(ROOT / "samples" / "allocation-memory.yaml")
    born = ("apply", "--dry-run=server", "-f", sample, "-o", "jsonpath={.metadata.finalizers}")  # one mutating policy
    deadline = time.monotonic() + LIMIT_S
    while (
        "Policy 'last'" not in served.kubectl.run("create", "configmap", "refused", "--dry-run=server").stderr
        or "hypermesh.online/release" not in served.kubectl.run(*born).stdout
    ):
        assert time.monotonic() < deadline, "the admission policies are not enforced"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def kubectl(served: Served) -> Kubectl:
    """The administrator's, where only the CRDs stand in the way."""
    return served.kubectl
