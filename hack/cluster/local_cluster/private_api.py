"""A private etcd and API server on ::1, for tests that need a real API and no nodes. Needs no root, no namespaces.

Both processes are children that the kernel kills with this one (PR_SET_PDEATHSIG), so a test run that is shot
leaves nothing. Ports are free ones. There are no controllers: nothing is collected, no service accounts are made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from local_cluster import kubectl
from local_cluster.certificates import Authority, Leaf
from local_cluster.control_plane import LOOPBACK, ApiServer
from local_cluster.kubeconfigs import kubeconfig
from local_cluster.provision import ADMIN, API_KUBELET, API_NAMES, write_private
from local_cluster.state import ClusterError
from local_cluster.supervisor import Service

# Unique Local (RFC 4193); nothing routes it, the API server only hands out numbers of it
SERVICES = IPv6Network("fd00:6879:7065::/112")
# --advertise-address may not be loopback; the `kubernetes` Service shows it, and nobody here follows it
ADVERTISED = IPv6Address("fd00:6879:7065:1::1")
READY_SECONDS = 180.0
STOP_SECONDS = 10.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class PrivateApi:
    """A running API server: its address and the administrator's kubeconfig."""

    url: str
    kubeconfig: Path
    processes: tuple[subprocess.Popen[bytes], ...]


@contextlib.contextmanager
def private_api(directory: Path, binaries: Path) -> Iterator[PrivateApi]:
    """Runs etcd and the API server while the body runs; data, logs and certificates stay in `directory`."""
    absent = [name for name in ("etcd", "kube-apiserver") if not (binaries / name).exists()]
    if absent:
        raise ClusterError(f"{', '.join(absent)} not built; run `make tools`")
    directory.mkdir(parents=True, exist_ok=True)
    authority = Authority(directory / "certificates")
    authority.ensure()
    for leaf in (Leaf("apiserver", "kube-apiserver", names=API_NAMES, addresses=(LOOPBACK,)), ADMIN, API_KUBELET):
        authority.issue(leaf)
    port, etcd_port, peer_port = free_ports(3)
    server = ApiServer(
        binaries, directory, authority.directory, ADVERTISED, LOOPBACK, port, SERVICES, etcd_port, peer_port
    )
    url, path = f"https://[{LOOPBACK}]:{port}", directory / "kubeconfig"
    write_private(path, kubeconfig(url, authority, ADMIN.stem))
    with contextlib.ExitStack() as running:
        etcd = running.enter_context(_child(server.etcd()))
        api = running.enter_context(_child(server.apiserver()))
        kubectl.wait_for_api(url, authority.certificate, READY_SECONDS, Path(server.log("kube-apiserver")))
        yield PrivateApi(url, path, (etcd, api))


def serve(directory: Path, binaries: Path, *, until_eof: bool) -> int:
    """Runs it in the foreground until SIGTERM or SIGINT, or the end of standard input; tells the kubeconfig."""
    ending = {signal.SIGTERM, signal.SIGINT}
    readable, writable = os.pipe()
    for number in ending:
        signal.signal(number, lambda *_: os.write(writable, b"x") and None)
    with private_api(directory, binaries) as api:
        print(f"ready {api.kubeconfig}", flush=True)
        sources: list[int] = [readable, *([sys.stdin.fileno()] if until_eof else [])]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if readable in ready or not os.read(sys.stdin.fileno(), 4096):
                return 0


def free_ports(count: int) -> list[int]:
    """TCP ports of ::1 that are free now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM)) for _ in range(count)]
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [int(item.getsockname()[1]) for item in sockets]


@contextlib.contextmanager
def _child(service: Service) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that is stopped with the body, and killed with this process."""
    with Path(service.log).open("ab") as log:
        process = subprocess.Popen(
            service.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
