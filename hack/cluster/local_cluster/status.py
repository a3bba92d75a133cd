"""`status`: which machines run, with what daemons, and whether Kubernetes calls them ready. Reads, changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from local_cluster import kubectl, network, provision
from local_cluster.addresses import CONTROL_PLANE, SWITCH, node_name
from local_cluster.state import ClusterError, State


def report(state: State, binaries: Path) -> dict[str, Any]:
    """The cluster as data; see `table` for people."""
    names = [SWITCH, CONTROL_PLANE, *(node_name(number) for number in range(1, state.nodes + 1))]
    running = {name: state.running(name) for name in names} if state.nodes else {}
    certificate = provision.authority(state).certificate
    api = certificate.exists() and running.get(CONTROL_PLANE, False)
    ready = api and kubectl.api_ready(state.plan.api_url, certificate)
    conditions = node_conditions(state, binaries) if ready else {}
    return {
        "directory": str(state.directory),
        "prefix": str(state.plan.prefix),
        "link": state.plan.host_link if state.plan.host_link in network.links() else "",
        "kubeconfig": str(state.kubeconfig) if state.kubeconfig.exists() else "",
        "apiReady": ready,
        "machines": [
            {
                "name": name,
                "address": address_of(state, name),
                "running": running[name],
                "pid": state.machines[name].pid if running[name] else 0,
                "ready": {SWITCH: running[name], CONTROL_PLANE: ready}.get(name, conditions.get(name, False)),
            }
            for name in running
        ],
    }


def address_of(state: State, name: str) -> str:
    """A machine's address; the switch shows the host's."""
    if name == SWITCH:
        return str(state.plan.host)
    if name == CONTROL_PLANE:
        return str(state.plan.control_plane)
    return str(state.plan.node(int(name.rpartition("-")[2])))


def node_conditions(state: State, binaries: Path) -> dict[str, bool]:
    """Node name -> whether its Ready condition is True."""
    try:
        nodes = json.loads(kubectl.kubectl(binaries, state.kubeconfig, "get", "nodes", "-o", "json"))
    except ClusterError:
        return {}
    return {
        item["metadata"]["name"]: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item["status"].get("conditions", [])
        )
        for item in nodes["items"]
    }


def table(body: dict[str, Any]) -> str:
    """The report for people."""
    if not body["machines"]:
        return f"no cluster in {body['directory']}; `make cluster-up` makes one\n"
    rows = [("MACHINE", "ADDRESS", "RUNNING", "READY", "PID")]
    for item in body["machines"]:
        told = ("yes" if item["running"] else "no", "yes" if item["ready"] else "no", str(item["pid"] or "-"))
        rows.append((item["name"], item["address"], *told))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"prefix {body['prefix']}, kubeconfig {body['kubeconfig']}"]) + "\n"
