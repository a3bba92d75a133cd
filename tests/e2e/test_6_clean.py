"""`make demo-clean` leaves nothing: on nodes that stay, or of a cluster: process, mount, cgroup, link, route, table."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .support import ROOT, Mesh, run


def snapshot() -> dict[str, set[str]]:
    """What the kernel shows that a cluster could leave behind."""

    def lines(*command: str) -> set[str]:
        return set(subprocess.run(command, text=True, capture_output=True, check=False).stdout.splitlines())

    groups = {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "hypermesh" in folder or "kube" in folder}
    return {
        "links": {line.split(":")[1].strip() for line in lines("ip", "-o", "link")},
        "routes": {line for line in lines("ip", "-6", "route") if line.startswith("fd")},
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if str(ROOT / "build") in line},
        "cgroups": groups,
        "tables": lines("nft", "list", "tables"),
        "processes": {
            line
            for line in lines("ps", "-eo", "args")
            if (str(ROOT / "build") in line or line.startswith("hypermesh-"))
            and "/pytest-" not in line  # of another test that runs beside this one
        },
    }


LEFT = """
nft list table ip6 hypermesh 2>/dev/null
ip -6 route show table all proto 88
grep ^hypermesh /proc/mounts
find /sys/fs/cgroup -type d -name hypermesh
find /var/lib/hypermesh -name regions
"""
"""What the agent brings to a node, but for its key and plots."""


def test_nodes_of_a_cluster_that_stays_are_clean_without_the_chart(three: Mesh) -> None:
    """Of three nodes and, by then, four validators. The chart is gone afterwards."""
    nodes = ("node-1", "node-2", "node-3")
    for node in nodes:
        found = three.node_exec(node, "sh", "-c", LEFT)
        assert "table ip6 hypermesh" in found
        assert "/88 via" in found, "routes to its peers"
        assert "tmpfs" in found
    three.kubectl("delete", "allocations", "--all", "--all-namespaces", "--timeout=150s", timeout=180)
    done = run(["make", "demo-clean", "CLUSTER=current"], timeout=600, KUBECONFIG=three.kubeconfig)
    assert "wait until all nodes are clean" in done.stdout
    assert {node: three.node_exec(node, "sh", "-c", LEFT) for node in nodes} == dict.fromkeys(nodes, "")


def test_nothing_is_left() -> None:
    run(["make", "demo-clean"], timeout=300)
    before = snapshot()
    run(["make", "demo"], timeout=1200)
    during = snapshot()
    assert during["processes"] > before["processes"]
    assert during["links"] > before["links"]
    assert during["routes"] > before["routes"]
    run(["make", "demo-clean"], timeout=300)
    after = snapshot()
    for kind, found in after.items():
        assert found <= before[kind], f"{kind} are left: {found - before[kind]}"
