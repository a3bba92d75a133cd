"""Command lines and configuration files of a node: containerd, kubelet, kube-proxy, the pod network. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from local_cluster.addresses import API_PORT, Plan, node_name
from local_cluster.control_plane import API_SEEN
from local_cluster.supervisor import Service

SANDBOX_IMAGE = "localhost/hypermesh/pause:1"
CLUSTER_DOMAIN = "cluster.local"
CRI_SOCKET = "/run/containerd/containerd.sock"
CNI_BINARIES = "/usr/lib/cni"
KUBERNETES = "/etc/kubernetes"
VOLUMES = "/var/lib/local-volumes"
# What a kubelet sets for the whole machine (setupKernelTunables in its pkg/kubelet/cm/container_manager_linux.go). The
# machine is not ours alone: the kubelet is shown these as set already, and the kernel keeps what it has.
KERNEL_SETTINGS = {
    "/proc/sys/vm/overcommit_memory": "1\n",
    "/proc/sys/vm/panic_on_oom": "0\n",
    "/proc/sys/kernel/panic": "10\n",
    "/proc/sys/kernel/panic_on_oops": "1\n",
    "/proc/sys/kernel/keys/root_maxkeys": "1000000\n",
    "/proc/sys/kernel/keys/root_maxbytes": "25000000\n",
}
UNUSED_PLUGINS = ("io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs")


@dataclass(frozen=True)
class Node:
    """The number-th node of a cluster; `directory` is where the host keeps its logs."""

    plan: Plan
    number: int
    binaries: Path
    directory: Path

    @property
    def name(self) -> str:
        """Its name in Kubernetes and its host name."""
        return node_name(self.number)

    @property
    def address(self) -> IPv6Address:
        """Its InternalIP."""
        return self.plan.node(self.number)

    def services(self) -> tuple[Service, ...]:
        """Its daemons. PATH leads containerd to its shim and runc, kube-proxy to nft."""
        environment = {"PATH": f"{self.binaries}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        api = (str(self.plan.control_plane), API_PORT)
        containerd = (str(self.binaries / "containerd"), "-c", "/etc/containerd/config.toml")
        kubelet = (
            str(self.binaries / "kubelet"),
            f"--config={KUBERNETES}/kubelet.json",
            f"--kubeconfig={KUBERNETES}/kubelet.kubeconfig",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            "--root-dir=/var/lib/kubelet",
        )
        proxy = (str(self.binaries / "kube-proxy"), f"--config={KUBERNETES}/kube-proxy.json")
        seen = f"{KUBERNETES}/{API_SEEN}"
        return (
            Service("containerd", containerd, self._log("containerd"), environment),
            Service("kubelet", kubelet, self._log("kubelet"), environment, (CRI_SOCKET, seen), api),
            Service("kube-proxy", proxy, self._log("kube-proxy"), environment, (seen,), api),
        )

    def _log(self, name: str) -> str:
        return str(self.directory / f"{name}.log")

    def files(self) -> dict[str, str]:
        """Configuration files, node path -> text. Kubeconfigs and certificates come by bind mount."""
        return {
            "/etc/hostname": f"{self.name}\n",
            "/etc/machine-id": f"{self.plan.identity}{self.number:024x}\n",
            "/etc/hosts": f"::1 localhost\n{self.address} {self.name}\n",
            "/etc/resolv.conf": f"nameserver {self.plan.dns_service}\n",
            "/etc/containerd/config.toml": containerd_config(),
            "/etc/cni/net.d/10-pods.conflist": _json(self.pod_network()),
        }

    def pod_network(self) -> dict[str, Any]:
        """CNI configuration: a bridge, addresses of this node's /64, no masquerading (routes lead everywhere)."""
        addresses = {"type": "host-local", "ranges": [[{"subnet": str(self.plan.pods_of(self.number))}]]}
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {**addresses, "routes": [{"dst": "::/0"}]},
        }
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}

    def kubelet_config(self) -> dict[str, Any]:
        """KubeletConfiguration. Disk pressure is off as in kind: the disk is the host's, not this node's."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "::",
            "healthzBindAddress": "::1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{KUBERNETES}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{KUBERNETES}/kubelet.crt",
            "tlsPrivateKeyFile": f"{KUBERNETES}/kubelet.key",
            # A process that is killed on purpose comes back in seconds, not after five minutes (KEP-4603).
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
            "containerRuntimeEndpoint": f"unix://{CRI_SOCKET}",
            "clusterDNS": [str(self.plan.dns_service)],
            "clusterDomain": CLUSTER_DOMAIN,
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "resolvConf": "/etc/resolv.conf",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }

    def proxy_config(self) -> dict[str, Any]:
        """KubeProxyConfiguration. Zeros in conntrack: its limits are the host's, of all namespaces at once."""
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "bindAddress": "::",
            "healthzBindAddress": "[::]:10256",
            "metricsBindAddress": "[::1]:10249",
            "hostnameOverride": self.name,
            "clusterCIDR": str(self.plan.pods),
            "clientConnection": {"kubeconfig": f"{KUBERNETES}/kube-proxy.kubeconfig"},
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "oomScoreAdj": 0,
        }


def containerd_config() -> str:
    """containerd 2 configuration (TOML).

    restrict_oom_score_adj: a kernel or container that refuses negative scores would fail every sandbox otherwise.
    """
    disabled = ", ".join(f'"{plugin}"' for plugin in UNUSED_PLUGINS)
    return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [{disabled}]

[grpc]
  address = "{CRI_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "runc"
  SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{CNI_BINARIES}"]
  conf_dir = "/etc/cni/net.d"
"""


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=1) + "\n"
