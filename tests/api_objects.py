"""What stands in an API server before a process of ours starts: CRDs, parts of the chart, accounts and their tokens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import yaml

from hypermesh.conditions import find
from hypermesh_clients.kube import Kube, KubeError, Object, Resource
from hypermesh_clients.kube_resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from kubectl_hypermesh.checks.installation import allocations_taken
from kubectl_hypermesh.checks.model import CheckFailed, Context

ROOT = Path(__file__).resolve().parents[1]
BINARIES = ROOT / "build" / "bin"
SYSTEM = "hypermesh-system"
LIMIT_S = 60.0
RBAC = "rbac.authorization.k8s.io"
ADMISSION = "admissionregistration.k8s.io"


def _cluster(group: str, plural: str, kind: str) -> Resource:
    return Resource(group, "v1", plural, kind, namespaced=False)


KINDS = {
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": Resource(RBAC, "v1", "roles", "Role"),
    "RoleBinding": Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
    "ClusterRole": _cluster(RBAC, "clusterroles", "ClusterRole"),
    "ClusterRoleBinding": _cluster(RBAC, "clusterrolebindings", "ClusterRoleBinding"),
    **{
        kind: _cluster(ADMISSION, plural, kind)
        for kind, plural in {
            "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
            "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
            "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
            "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
        }.items()
    },
}


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


async def install_chart(
    kube: Kube, *parts: str, namespace: str = SYSTEM, change: Callable[[Object], None] = lambda _: None
) -> None:
    """Parts of the chart as helm renders them, each object after `change`."""
    command = [
        str(BINARIES / "helm"),
        "template",
        "hypermesh",
        str(ROOT / "charts/hypermesh"),
        "--namespace",
        namespace,
    ]
    command += [f"--show-only=templates/{part}" for part in parts]
    command += [f"--api-versions={ADMISSION}/v1/MutatingAdmissionPolicy"]  # as helm finds it on this server
    rendered = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
    for manifest in yaml.safe_load_all(rendered.stdout):
        if manifest:
            change(manifest)
            await kube.apply(KINDS[manifest["kind"]], manifest, field_manager="helm")


async def until_allocations_taken(kube: Kube, namespace: str = SYSTEM) -> None:
    """Returns when the chart's admission policies are in force: before that the API server may refuse Allocations."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await allocations_taken(Context(kube, namespace))
            except (CheckFailed, KubeError):
                await asyncio.sleep(0.05)


async def pod_of(kube: Kube, account: str, node: str, namespace: str = SYSTEM) -> Object:
    """A new pod of the service account on that node; both are made where they are missing."""
    await kube.apply(NODES, {"metadata": {"name": node}}, field_manager="test")
    await kube.apply(SERVICE_ACCOUNTS, {"metadata": {"name": account, "namespace": namespace}}, field_manager="test")
    body = {
        "metadata": {"name": f"{account}-{uuid.uuid4().hex[:8]}", "namespace": namespace},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "nodeName": node,
            "containers": [{"name": "main", "image": "main"}],
        },
    }
    return await kube.create(PODS, body)


async def token(
    kube: Kube,
    account: str,
    namespace: str = SYSTEM,
    pod: Object | None = None,
    *,
    audience: str | None = None,
    seconds: int = 7200,
) -> str:
    """A token of the account as kubelet projects it: for one audience (None: the API server), bound to a pod or not."""
    spec: Object = {"expirationSeconds": seconds}
    if audience is not None:
        spec["audiences"] = [audience]
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await kube.create(SERVICE_ACCOUNTS, request, namespace, name=account, subresource="token")
    return str(answer["status"]["token"])


async def bound_token(kube: Kube, account: str, node: str, namespace: str = SYSTEM) -> str:
    """A token for the API server, bound to a new pod on that node."""
    return await token(kube, account, namespace, await pod_of(kube, account, node, namespace))


def kubeconfig(administrators: Path, target: Path, bearer: str) -> Path:
    """The administrator's kubeconfig with the bearer token in place of the certificate; JSON, which is YAML too."""
    content = yaml.safe_load(administrators.read_text())
    for user in content["users"]:
        user["user"] = {"token": bearer}
    target.write_text(json.dumps(content))
    return target
