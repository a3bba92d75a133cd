"""Commands inside a running node: a shell, and the import of image tars into its containerd."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from local_cluster import cgroups, oci, paths
from local_cluster.node import CRI_SOCKET
from local_cluster.state import ClusterError, State

SOCKET_SECONDS = 30.0
IMPORT_SECONDS = 300


def enter(state: State, name: str) -> list[str]:
    """The command prefix that runs a command in a node's namespaces; raises ClusterError when it is not running."""
    if not state.running(name):
        running = ", ".join(sorted(item for item in state.machines if state.running(item))) or "none"
        raise ClusterError(f"machine {name} is not running (running: {running}); run `make cluster-up`")
    spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
    return ["nsenter", f"--target={state.machines[name].pid}", *spaces, "--"]


def execute(state: State, name: str, command: Sequence[str]) -> None:
    """Becomes a command in a node; it belongs to the node, so `down` ends it too."""
    prefix = enter(state, name)
    cgroups.join(f"{state.plan.cgroup}/{name}/{cgroups.SYSTEM}", os.getpid())
    os.environ["PATH"] = f"{paths.BINARIES}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    full = [*prefix, *(command or ["/bin/bash"])]
    os.execvp(full[0], full)


def import_image(state: State, name: str, tars: Sequence[Path]) -> None:
    """Imports image tars into a node's containerd, as far as it lacks them; raises ClusterError with its complaint."""
    wait_for_containerd(state, name)
    ctr = [*enter(state, name), str(paths.BINARIES / "ctr"), "--namespace=k8s.io"]
    listed = [line.split() for line in _run([*ctr, "images", "list"]).splitlines()[1:]]
    images = {(line[0], line[2]) for line in listed}
    for tar in tars:
        wanted = set(oci.images_in(tar).items())
        if wanted and wanted <= images:
            continue
        blobs = set(_run([*ctr, "content", "list", "--quiet"]).split())
        process = subprocess.Popen(
            [*ctr, "images", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        with process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # why it closed is in its complaint
                oci.copy_without(tar, blobs if wanted else (), pipe)
            process.stdin = None
            _, complaint = process.communicate(timeout=IMPORT_SECONDS)
        if process.returncode != 0:
            raise ClusterError(f"node {name} refused image {tar}: {complaint.decode().strip()[-400:]}")


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command[-4:])}` failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def wait_for_containerd(state: State, name: str) -> None:
    """Waits until a node's containerd has its socket."""
    deadline = time.monotonic() + SOCKET_SECONDS
    probe = [*enter(state, name), "test", "-S", CRI_SOCKET]
    while subprocess.run(probe, check=False, capture_output=True, timeout=SOCKET_SECONDS).returncode != 0:
        if time.monotonic() > deadline:
            log = state.machine_directory(name) / "containerd.log"
            raise ClusterError(f"containerd of {name} is not up after {SOCKET_SECONDS:.0f} s; see {log}")
        time.sleep(0.1)
