"""Looks before `up` leaps: root, kernel features, programs. Missing Debian packages are installed, and named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from local_cluster import paths
from local_cluster.node import CNI_BINARIES
from local_cluster.state import ClusterError

# program or file -> Debian package
PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "openssl": "openssl",
    "gcc": "gcc",
    "/usr/include/stdlib.h": "libc6-dev",
    "nft": "nftables",
    "runc": "runc",
    f"{CNI_BINARIES}/bridge": "containernetworking-plugins",
}
BRIDGE_SETTING = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
INSTALL_SECONDS = 900
ALTERNATIVES = "or use a cluster you have: CLUSTER=current (the current kubeconfig context) or CLUSTER=kind"


def present(needed: str) -> bool:
    """Whether a program is on PATH (sbin included), or a file exists."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return Path(needed).exists() if needed.startswith("/") else shutil.which(needed, path=path) is not None


def missing_packages(is_present: Callable[[str], bool]) -> list[str]:
    """The Debian packages of what is not there, each once."""
    return sorted({package for needed, package in PACKAGES.items() if not is_present(needed)})


def require_root() -> None:
    """Raises ClusterError for anyone but root; nothing was touched by then."""
    if os.geteuid() != 0:
        raise ClusterError(
            "the local cluster needs root, to make network namespaces, mounts and cgroups: run as root "
            f"(for example with sudo), {ALTERNATIVES}"
        )


def check(tools: Iterable[str]) -> None:
    """Raises ClusterError when a cluster can't run here; installs what apt-get can give, builds what is not built."""
    install(missing_packages(present))
    _check_kernel()
    built = subprocess.run([sys.executable, str(paths.CHECKOUT / "hack" / "toolchain"), *tools], check=False)
    if built.returncode != 0:
        raise ClusterError("a tool could not be built, for the reason above; try again, what is done stays done")


def install(packages: list[str]) -> None:
    """Installs Debian packages without a question; says which."""
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"this machine lacks {', '.join(packages)}; install them, {ALTERNATIVES}")
    print(f"installing Debian packages: {' '.join(packages)}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, env=environment, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
        )

    done = run(command)
    if done.returncode != 0:  # a fresh machine has no package lists yet
        run(["apt-get", "update", "--quiet"])
        done = run(command)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-400:]}")


def _check_kernel() -> None:
    if not Path("/proc/net/if_inet6").exists():
        raise ClusterError(f"IPv6 is off on this machine and the cluster needs it; turn it on, {ALTERNATIVES}")
    if not _has_overlay():
        subprocess.run(["modprobe", "overlay"], check=False, capture_output=True)
    if not _has_overlay():
        raise ClusterError(f"this kernel has no overlay file system; use another kernel, {ALTERNATIVES}")
    if not Path("/sys/fs/cgroup").is_dir() or not any(Path("/sys/fs/cgroup").iterdir()):
        raise ClusterError(f"no cgroups are mounted at /sys/fs/cgroup; mount them, {ALTERNATIVES}")
    if not BRIDGE_SETTING.exists():
        subprocess.run(["modprobe", "br_netfilter"], check=False, capture_output=True)
    if not BRIDGE_SETTING.exists():
        raise ClusterError(
            f"this kernel has no br_netfilter, without which Services fail within a node; load it, {ALTERNATIVES}"
        )


def _has_overlay() -> bool:
    return "\toverlay\n" in Path("/proc/filesystems").read_text()
