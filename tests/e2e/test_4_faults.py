"""`kill -9` of each process at random moments of a load: everything converges, nothing is lost or doubled."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import NAMESPACE, ROOT, Mesh, allocation, amount, eventually, is_true

LOAD = 100
MOMENTS = 10
SEED = 20260101
VICTIMS = {
    "agent": ("pod", "hypermesh-agent"),
    "operator": ("pod", "hypermesh-operator"),
    "trustchain": ("pod", "hypermesh-trustchain"),
    "application": ("pod", "hypermesh_ledger.application"),
    "cometbft": ("pod", "cometbft"),
    "apiserver": ("control-plane", "kube-apiserver"),
}


@pytest.fixture
def namespace(mesh: Mesh) -> Iterator[str]:
    name = f"faults-{int(time.time())}"
    mesh.kubectl("create", "namespace", name)
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=true", timeout=300)


def kill_in_node(mesh: Mesh, pattern: str) -> int:
    """kill -9 of the processes of node-1 whose command line holds `pattern`; how many there were."""
    script = (
        "n=0; for p in /proc/[0-9]*; do c=$(tr '\\0' ' ' <$p/cmdline 2>/dev/null) || continue; "
        f"case \"$c\" in *'for p in'*) ;; *{pattern}*) kill -9 ${{p#/proc/}} && n=$((n+1)) ;; esac; done; echo $n"
    )
    return int(mesh.node_exec("node-1", "sh", "-c", script).strip() or 0)


def kill_apiserver() -> int:
    """kill -9 of the embedded cluster's API server, found below the machine whose pid the cluster recorded."""
    machine = json.loads((ROOT / "build" / "cluster" / "state.json").read_text())["machines"]["control-plane"]["pid"]
    killed = 0
    for child in Path(f"/proc/{machine}/task/{machine}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == "kube-apiserver":
            os.kill(int(child), signal.SIGKILL)
            killed += 1
    return killed


def apply_through_restarts(mesh: Mesh, batch: list[dict[str, Any]]) -> None:
    """kubectl apply, repeated while the API server is down."""

    def applied() -> bool:
        try:
            mesh.apply(batch)
        except AssertionError:
            return False
        return True

    eventually("the API server takes the batch", applied, seconds=60)


def healthy(mesh: Mesh) -> bool:
    return mesh.plugin("check", check=False).returncode == 0


@pytest.mark.parametrize("victim", VICTIMS)
def test_everything_converges(mesh: Mesh, namespace: str, victim: str) -> None:
    where, pattern = VICTIMS[victim]
    chance = random.Random(f"{SEED}-{victim}")
    documents = [allocation(f"a-{i}", "memory", "1Mi", namespace) for i in range(LOAD)]
    killed = 0
    for start in range(0, LOAD, LOAD // MOMENTS):
        batch = documents[start : start + LOAD // MOMENTS]
        apply_through_restarts(mesh, batch)
        time.sleep(chance.uniform(0.0, 0.8))  # the random moment
        kill = kill_apiserver if where == "control-plane" else lambda: kill_in_node(mesh, pattern)
        killed += eventually(f"{victim} is there to be killed", kill, seconds=40)
    assert killed >= MOMENTS

    def all_ready() -> list[dict[str, Any]] | None:
        items = [item for item in mesh.objects("allocations", namespace) if is_true(item, "Ready")]
        return items if len(items) == LOAD else None

    eventually("the mesh is healthy again", lambda: healthy(mesh), seconds=180, pause=1)
    items = eventually(
        f"all {LOAD} Allocations are Ready after {victim} died {killed} times", all_ready, seconds=180, pause=1
    )
    state = mesh.ledger()
    active = [a for a in state["allocations"] if a["state"] == "ACTIVE" and a["namespace"] == namespace]
    assert len(active) == LOAD
    assert len({entry["address"] for entry in active}) == LOAD
    assert {item["status"]["proxyAddress"] for item in items} == {entry["address"] for entry in active}
    assert sum(amount("memory", item["status"]["granted"]) for item in items) == LOAD << 20
    for asset in state["assets"]:
        held = sum(
            a["amount"] for a in state["allocations"] if a["state"] == "ACTIVE" and a["assetID"] == asset["assetID"]
        )
        assert asset["reserved"] == held


def test_bytes_in_memory_survive_the_agent(mesh: Mesh, namespace: str) -> None:
    mesh.apply([allocation("kept", "memory", "1Mi", namespace)])
    mesh.kubectl("-n", namespace, "wait", "--for=condition=Ready", "allocation/kept", "--timeout=60s")
    mesh.plugin("write", "kept", "-n", namespace, stdin="still here")
    assert kill_in_node(mesh, "hypermesh-agent") >= 1
    eventually("the mesh is healthy again", lambda: healthy(mesh), seconds=120, pause=1)
    read = mesh.plugin("read", "kept", "-n", namespace, "--length", "10")
    assert read.stdout == "still here"


def test_the_install_namespace_holds_no_secret_in_its_logs(mesh: Mesh) -> None:
    tokens = [
        secret.data["token"]
        for secret in mesh.core.list_secret_for_all_namespaces(field_selector="type=hypermesh.online/access").items
        if secret.data
    ]
    pods = mesh.core.list_namespaced_pod(NAMESPACE).items
    logs = "".join(mesh.kubectl("-n", NAMESPACE, "logs", pod.metadata.name, "--tail=5000", check=False) for pod in pods)
    assert logs
    for token in tokens:
        assert base64.b64decode(token).decode() not in logs
        assert token not in logs
