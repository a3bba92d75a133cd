"""Command lines of the control plane: etcd, API server, controller manager, scheduler. Pure.

etcd speaks plain HTTP on the loopback address of the control plane's own network namespace; nobody else is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from local_cluster.supervisor import Service

ISSUER = "https://kubernetes.default.svc.cluster.local"
LOOPBACK = "::1"
# Written once the API server was ready: its clients' very first start waits for it, since a new API server accepts
# connections seconds before it has its own access rules, and each client then backs off for seconds.
API_SEEN = "api-was-ready"
# Default client limits (20 requests/s) are for clusters that share a control plane; here they only delay start-up.
CLIENT_LIMITS = ("--kube-api-qps=200", "--kube-api-burst=400")


@dataclass(frozen=True)
class ApiServer:
    """What an etcd and API server need to know: addresses, ports, and where files are."""

    binaries: Path
    directory: Path
    certificates: Path
    advertise: IPv6Address
    bind: str
    port: int
    services: IPv6Network
    etcd_port: int = 2379
    etcd_peer_port: int = 2380

    @property
    def etcd_url(self) -> str:
        """Where the API server finds etcd."""
        return f"http://[{LOOPBACK}]:{self.etcd_port}"

    def log(self, name: str) -> str:
        """A daemon's log file."""
        return str(self.directory / f"{name}.log")

    def _certificate(self, name: str) -> str:
        return str(self.certificates / name)

    def etcd(self) -> Service:
        """The store; compacted by the API server, one member."""
        peer = f"http://[{LOOPBACK}]:{self.etcd_peer_port}"
        command = (
            str(self.binaries / "etcd"),
            "--name=local",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=local={peer}",
            "--log-level=warn",
        )
        return Service("etcd", command, self.log("etcd"))

    def apiserver(self) -> Service:
        """The API server: Node and RBAC authorisation, NodeRestriction, service-account tokens for TokenReview."""
        command = (
            str(self.binaries / "kube-apiserver"),
            f"--advertise-address={self.advertise}",
            f"--bind-address={self.bind}",
            f"--secure-port={self.port}",
            f"--etcd-servers={self.etcd_url}",
            f"--service-cluster-ip-range={self.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={self._certificate('ca.crt')}",
            f"--tls-cert-file={self._certificate('apiserver.crt')}",
            f"--tls-private-key-file={self._certificate('apiserver.key')}",
            f"--kubelet-certificate-authority={self._certificate('ca.crt')}",
            f"--kubelet-client-certificate={self._certificate('apiserver-kubelet.crt')}",
            f"--kubelet-client-key={self._certificate('apiserver-kubelet.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self._certificate('service-account.pub')}",
            f"--service-account-signing-key-file={self._certificate('service-account.key')}",
            "--enable-aggregator-routing=true",
            "--profiling=false",
        )
        return Service("kube-apiserver", command, self.log("kube-apiserver"), needs_address=(LOOPBACK, self.etcd_port))

    def _client(self, name: str, command: tuple[str, ...]) -> Service:
        seen = (str(self.directory / API_SEEN),)
        address = (str(self.advertise), self.port)
        return Service(name, command, self.log(name), needs_paths=seen, needs_address=address)

    def controller_manager(self, pods: IPv6Network) -> Service:
        """The controllers; pod ranges come with each node's network configuration, so none are allocated here."""
        kubeconfig = str(self.directory / "controller-manager.kubeconfig")
        command = (
            str(self.binaries / "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={LOOPBACK}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",
            f"--cluster-cidr={pods}",
            f"--service-cluster-ip-range={self.services}",
            f"--root-ca-file={self._certificate('ca.crt')}",
            f"--cluster-signing-cert-file={self._certificate('ca.crt')}",
            f"--cluster-signing-key-file={self._certificate('ca.key')}",
            f"--service-account-private-key-file={self._certificate('service-account.key')}",
            "--profiling=false",
            *CLIENT_LIMITS,
        )
        return self._client("kube-controller-manager", command)

    def scheduler(self) -> Service:
        """The scheduler."""
        kubeconfig = str(self.directory / "scheduler.kubeconfig")
        command = (
            str(self.binaries / "kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={LOOPBACK}",
            "--leader-elect=false",
            "--profiling=false",
            *CLIENT_LIMITS,
        )
        return self._client("kube-scheduler", command)
