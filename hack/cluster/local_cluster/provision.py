"""Writes a cluster's files: certificates, kubeconfigs, configuration. What is there stays, so a cluster resumes."""

from __future__ import annotations

import json
from pathlib import Path

from local_cluster.addresses import API_PORT, CONTROL_PLANE
from local_cluster.certificates import Authority, Leaf
from local_cluster.control_plane import ApiServer
from local_cluster.kubeconfigs import kubeconfig
from local_cluster.manifests import VOLUME_COUNT, volume_name
from local_cluster.node import CLUSTER_DOMAIN, Node
from local_cluster.state import State

API_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
)
ADMIN = Leaf("admin", "kubernetes-admin", "system:masters")
API_KUBELET = Leaf("apiserver-kubelet", "kube-apiserver", "system:masters")
COMPONENTS = {
    "controller-manager": Leaf("controller-manager", "system:kube-controller-manager"),
    "scheduler": Leaf("scheduler", "system:kube-scheduler"),
}


def authority(state: State) -> Authority:
    """The cluster's certificate authority."""
    return Authority(state.directory / "certificates")


def api_server(state: State, binaries: Path) -> ApiServer:
    """The cluster's API server."""
    plan = state.plan
    directory = state.machine_directory(CONTROL_PLANE)
    certificates = authority(state).directory
    return ApiServer(binaries, directory, certificates, plan.control_plane, "::", API_PORT, plan.services)


def control_plane(state: State) -> None:
    """Certificates and kubeconfigs of the control plane and the administrator."""
    plan, certificates = state.plan, authority(state)
    directory = state.machine_directory(CONTROL_PLANE)
    directory.mkdir(parents=True, exist_ok=True)
    certificates.ensure()
    addresses = ("::1", str(plan.control_plane), str(plan.api_service))
    certificates.issue(Leaf("apiserver", "kube-apiserver", names=API_NAMES, addresses=addresses))
    for leaf in (ADMIN, API_KUBELET, *COMPONENTS.values()):
        certificates.issue(leaf)
    for stem in COMPONENTS:
        write_private(directory / f"{stem}.kubeconfig", kubeconfig(plan.api_url, certificates, stem))
    write_private(state.kubeconfig, kubeconfig(plan.api_url, certificates, ADMIN.stem))


def node(state: State, item: Node) -> None:
    """Certificates, kubeconfigs and configuration of one node, in the directory it sees as /etc/kubernetes."""
    certificates = authority(state)
    kubelet = Leaf(
        f"kubelet-{item.name}", f"system:node:{item.name}", "system:nodes", (item.name,), (str(item.address),)
    )
    proxy = Leaf("kube-proxy", "system:kube-proxy")
    for leaf in (kubelet, proxy):
        certificates.issue(leaf)
    for name in ("containerd", "kubelet", "hypermesh", "pod-logs", "kubernetes"):
        (item.directory / name).mkdir(parents=True, exist_ok=True)
    url = state.plan.api_url
    etc = item.directory / "kubernetes"
    (etc / "ca.crt").write_bytes(certificates.certificate.read_bytes())
    for suffix in ("crt", "key"):
        write_private(etc / f"kubelet.{suffix}", certificates.path(kubelet.stem, suffix).read_text())
    write_private(etc / "kubelet.kubeconfig", kubeconfig(url, certificates, kubelet.stem))
    write_private(etc / "kube-proxy.kubeconfig", kubeconfig(url, certificates, proxy.stem))
    (etc / "kubelet.json").write_text(json.dumps(item.kubelet_config(), indent=1) + "\n")
    (etc / "kube-proxy.json").write_text(json.dumps(item.proxy_config(), indent=1) + "\n")


def volumes(state: State) -> Path:
    """The directories of the local volumes; every node sees them."""
    top = state.directory / "volumes"
    for number in range(1, VOLUME_COUNT + 1):
        (top / volume_name(number)).mkdir(parents=True, exist_ok=True)
    return top


def write_private(path: Path, text: str) -> None:
    """Writes a file only root may read."""
    path.touch(mode=0o600)
    path.write_text(text)
