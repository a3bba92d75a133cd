"""Leaving a cluster as docs/how-to/install.md and `make demo-clean CLUSTER=current` tell it, on a real API server."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .release import ROOT, Cluster

NAMESPACE = "hypermesh-system"
CHART = ROOT / "charts" / "hypermesh"
DEFINITIONS = [f"crd/{plural}.hypermesh.online" for plural in ("assets", "allocations", "proxymappings")]
FINALIZER = "hypermesh.online/release"


@pytest.fixture
def cluster(module_api_server: Any) -> Iterator[Cluster]:
    """With one Allocation, which only an operator would let go of, and no operator; nothing is left at the end."""
    bare = Cluster(module_api_server.kubeconfig, CHART, "")
    bare.output("helm", "install", "hypermesh", str(CHART), "-n", NAMESPACE, "--create-namespace")
    spec = {"type": "cpu", "resources": {"cores": "1"}}
    held = {"apiVersion": "hypermesh.online/v1alpha1", "kind": "Allocation", "spec": spec}
    bare.create(json.dumps(held | {"metadata": {"name": "held", "finalizers": [FINALIZER]}}))
    yield bare
    bare.run("helm", "uninstall", "hypermesh", "-n", NAMESPACE)
    free(bare)
    bare.run("kubectl", "delete", *DEFINITIONS, "--timeout=30s")


def commands() -> list[str]:
    """What the page has a user type to leave, in order."""
    section = (ROOT / "docs" / "how-to" / "install.md").read_text().split("\n## Leave\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


def command(words: str) -> str:
    """The only one with these words."""
    (found,) = [text for text in commands() if words in text]
    return found


def free(cluster: Cluster) -> str:
    """What the page says for Allocations that nobody lets go of; returns what went wrong."""
    return cluster.run("bash", "-c", command("finalizers")).stderr


def clean(cluster: Cluster) -> tuple[int, str]:
    """`make demo-clean CLUSTER=current`: exit status and what it printed."""
    done = cluster.run(sys.executable, str(ROOT / "hack" / "demo.py"), "--cluster", "current", "--clean")
    return done.returncode, done.stdout + done.stderr


def installed(cluster: Cluster) -> bool:
    return "hypermesh" in cluster.output("helm", "list", "-n", NAMESPACE, "-q").split()


def test_definitions_go_although_an_allocation_was_left_without_its_operator(cluster: Cluster) -> None:
    cluster.output("bash", "-c", command("helm uninstall"))
    delete = command("delete crd")
    cluster.output("bash", "-c", f"{delete.strip()} --wait=false")
    assert cluster.get("allocation/held")["metadata"]["finalizers"] == [FINALIZER]
    assert free(cluster) == ""
    cluster.output("kubectl", "wait", "--for=delete", *DEFINITIONS, "--timeout=60s")


def test_the_page_has_allocations_deleted_and_nodes_cleaned_before_it_uninstalls(cluster: Cluster) -> None:
    text = commands()
    order = [text.index(command(words)) for words in ("delete allocations", "removal", "rollout", "uninstall", "crd")]
    assert order == sorted(order)
    cluster.output("bash", "-c", command("removal").replace("charts/hypermesh", str(CHART)))
    template = cluster.get("daemonset/hypermesh-agent", "-n", NAMESPACE)["spec"]["template"]["spec"]
    assert [item["name"] for item in template["initContainers"]] == ["removal"]
    assert [item["name"] for item in template["containers"]] == ["removed"]


def test_the_demo_is_not_uninstalled_while_somebody_holds_an_allocation(cluster: Cluster) -> None:
    status, printed = clean(cluster)
    assert status == 1
    assert "default/held" in printed
    assert "kubectl delete allocations --all --all-namespaces" in printed
    assert installed(cluster)

    cluster.run("kubectl", "delete", "allocation/held", "--wait=false")
    assert free(cluster) == "", "an operator would do it"
    as_rolled_out = json.dumps({"status": {"observedGeneration": 99}})
    how = ("--subresource=status", "--type=merge", "-p", as_rolled_out)
    cluster.output("kubectl", "patch", "daemonset/hypermesh-agent", "-n", NAMESPACE, *how)
    status, printed = clean(cluster)
    assert status == 0, printed
    assert "wait until all nodes are clean" in printed
    assert not installed(cluster)
    again = clean(cluster)
    assert again[0] == 0, again
    delete = next(line.strip() for line in printed.splitlines() if "kubectl delete crd" in line)
    cluster.output("bash", "-c", f"{delete} --timeout=60s")
    once_more = clean(cluster)
    assert once_more[0] == 0, once_more
