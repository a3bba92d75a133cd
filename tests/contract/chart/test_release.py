"""The chart by helm itself on a real API server: installed, upgraded with changed definitions, removed; true NOTES."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import yaml

from .release import ROOT, Cluster

NAMESPACE = "elsewhere"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:hypermesh-operator"
ALLOCATION = "customresourcedefinition/allocations.hypermesh.online"


@pytest.fixture(scope="module")
def cluster(module_api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The chart installed in another namespace than its usual one, on a server that nobody else needs: definitions,
    and Allocations that only an operator would let go of, stay behind."""
    chart = tmp_path_factory.mktemp("chart") / "hypermesh"
    shutil.copytree(ROOT / "charts" / "hypermesh", chart)
    bare = Cluster(module_api_server.kubeconfig, chart, "")
    notes = bare.output("helm", "install", "hypermesh", str(chart), "-n", NAMESPACE, "--create-namespace")
    return Cluster(module_api_server.kubeconfig, chart, notes)


def test_the_three_commands_of_the_notes_are_true(cluster: Cluster) -> None:
    lines = cluster.notes.splitlines()
    check = next(line.partition("kubectl hypermesh ")[2] for line in lines if "kubectl hypermesh " in line)
    assert check.split()[0] == "check"
    outcome = cluster.run("kubectl-hypermesh", *check.replace("2m", "1s").split(), "-o", "json")
    assert outcome.returncode == 1, "without a node there is no agent"
    assert NAMESPACE in outcome.stdout, outcome.stdout + outcome.stderr

    assets = next(line.partition(":  ")[2].strip() for line in lines if "kubectl get " in line)
    cluster.output(*assets.split())

    first, last = (lines.index(text) for text in ("kubectl apply -f - <<'END'", "END"))
    cluster.create("\n".join(lines[first + 1 : last]))
    wait = next(line for line in lines[last:] if line.startswith("kubectl wait"))
    ready = {"type": "Ready", "status": "True", "reason": "Programmed", "message": ""}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    patch = json.dumps({"status": {"conditions": [ready]}})
    how = ("--subresource=status", "--type=merge", f"--as={OPERATOR}", "-p", patch)
    cluster.output("kubectl", "patch", "allocation/memory", *how)
    assert "condition met" in cluster.output(*wait.split())


def test_an_upgrade_brings_changed_definitions_and_keeps_what_they_hold(cluster: Cluster) -> None:
    manifest = {"apiVersion": "hypermesh.online/v1alpha1", "kind": "Allocation", "metadata": {"name": "older"}}
    manifest["spec"] = {"type": "cpu", "resources": {"cores": "1"}}
    cluster.create(json.dumps(manifest))
    before = cluster.get("allocation/older")

    file = cluster.chart / "files" / "crds" / "allocations.yaml"
    definition = yaml.safe_load(file.read_text())
    version = definition["spec"]["versions"][0]
    note = {"type": "string", "maxLength": 63, "description": "A field of a later version."}
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["note"] = note
    version["additionalPrinterColumns"].append({"name": "Note", "type": "string", "jsonPath": ".spec.note"})
    file.write_text(yaml.safe_dump(definition))
    cluster.output("helm", "upgrade", "hypermesh", str(cluster.chart), "-n", NAMESPACE)

    served = cluster.get(ALLOCATION)["spec"]["versions"][0]
    assert served["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["note"] == note
    cluster.output("kubectl", "wait", "--for=condition=Established", ALLOCATION, "--timeout=30s")
    after = cluster.get("allocation/older")
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    manifest["metadata"] = {"name": "newer"}
    manifest["spec"] |= {"note": "new"}  # type: ignore[operator]
    cluster.create(json.dumps(manifest))
    assert cluster.get("allocation/newer")["spec"]["note"] == "new"


def test_an_upgrade_leaves_the_keys_alone(cluster: Cluster) -> None:
    """Their owners filled what the chart ships empty."""
    patch = json.dumps({"data": {"falcon.key": "a2V5"}})
    cluster.output("kubectl", "patch", "secret/hypermesh-operator-key", "-n", NAMESPACE, "--type=merge", "-p", patch)
    cluster.output("helm", "upgrade", "hypermesh", str(cluster.chart), "-n", NAMESPACE, "--set", "logLevel=DEBUG")
    assert cluster.get("secret/hypermesh-operator-key", "-n", NAMESPACE)["data"] == {"falcon.key": "a2V5"}


def test_uninstalling_keeps_definitions_objects_and_keys(cluster: Cluster) -> None:
    held = cluster.get("allocations")["items"]
    assert held
    cluster.output("helm", "uninstall", "hypermesh", "-n", NAMESPACE)
    assert not cluster.get("deployments,daemonsets,statefulsets,networkpolicies", "-n", NAMESPACE)["items"]
    uids = [item["metadata"]["uid"] for item in cluster.get("allocations")["items"]]
    assert uids == [item["metadata"]["uid"] for item in held]
    assert cluster.get("secret/hypermesh-operator-key", "-n", NAMESPACE)["data"]
    again = cluster.output("helm", "install", "hypermesh", str(cluster.chart), "-n", NAMESPACE)
    assert "What to do next" in again, "a later install takes over what the former one left"
