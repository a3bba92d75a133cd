"""Right manifests are accepted: every sample as it stands, and the forms of amounts that people write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hypermesh import quantities
from hypermesh.resources import allocation_spec

from .conftest import Served
from .kubectl import Kubectl

SAMPLES = sorted((Path(__file__).resolve().parents[3] / "samples").glob("*.yaml"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_is_accepted(kubectl: Kubectl, sample: Path) -> None:
    assert "(server dry run)" in kubectl("apply", "--dry-run=server", "-f", str(sample))


@pytest.mark.parametrize(
    ("kind", "quantity", "base"),
    [
        ("cpu", 2, 2000),
        ("cpu", "2", 2000),
        ("cpu", "500m", 500),
        ("cpu", "0.5", 500),
        ("cpu", "1.125", 1125),
        ("memory", 1048576, 1 << 20),
        ("memory", "1Gi", 1 << 30),
        ("memory", "1.5Gi", 3 << 29),
        ("memory", "1.1Gi", 1181116007),
        ("memory", "1G", 10**9),
        ("memory", "1e9", 10**9),
        ("memory", "2E2", 200),
        ("storage", "1Ti", 1 << 40),
        ("gpu", "8Gi", 8 << 30),
    ],
)
def test_amount_is_accepted_and_understood(kubectl: Kubectl, kind: str, quantity: int | str, base: int) -> None:
    field = {"cpu": "cores", "gpu": "gpuMemory"}.get(kind, kind)
    manifest = {
        "apiVersion": "hypermesh.online/v1alpha1",
        "kind": "Allocation",
        "metadata": {"name": "amount", "namespace": "team-a"},
        "spec": {"type": kind, "resources": {field: quantity}},
    }
    text = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest))
    stored = json.loads(text)["spec"]
    assert allocation_spec(stored).amount == base
    assert quantities.parse(field, quantities.render(field, base)) == base


def test_defaults_are_filled_in(kubectl: Kubectl) -> None:
    sample = next(path for path in SAMPLES if path.stem == "allocation-memory")
    spec = json.loads(kubectl("apply", "--dry-run=server", "-o", "json", "-f", str(sample)))["spec"]
    assert (spec["access"], spec["leaseDuration"], spec["privacyLevel"]) == ("Remote", "24h", "Private")


CHANGES = [
    ({"resources": {"memory": "2Gi"}}, "an Allocation's spec never changes; delete the Allocation and apply a new one"),
    ({"leaseDuration": "1h"}, "an Allocation's spec never changes"),
    ({"assetName": "node-1-memory-0011aabb"}, "an Allocation's spec never changes"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_allocation_never_changes(served: Served, change: dict[str, object], expected: str) -> None:
    kubectl = served.kubectl
    kubectl("apply", "-n", "team-a", "-f", str(next(path for path in SAMPLES if path.stem == "allocation-memory")))
    patch = json.dumps({"spec": change})
    assert expected in kubectl.fails("patch", "allocation/memory", "-n", "team-a", "--type=merge", "-p", patch)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"nodeName": "beta"}, "nodeName never changes"),
        ({"hardwareID": "other"}, "hardwareID names the piece of hardware and never changes"),
        ({"type": "cpu"}, "type never changes"),
    ],
)
def test_identity_of_an_asset_never_changes(served: Served, change: dict[str, str], expected: str) -> None:
    served.kubectl("apply", "-f", str(next(path for path in SAMPLES if path.stem == "asset")))
    patch = json.dumps({"spec": change})
    refused = served.kubectl.fails("patch", "asset/alpha-memory-3f2a9c01", "--type=merge", "-p", patch)
    assert expected in refused


def test_wait_for_ready_works(served: Served) -> None:
    kubectl = served.kubectl
    kubectl("apply", "-n", "team-a", "-f", str(next(path for path in SAMPLES if path.stem == "allocation-memory")))
    unmet = kubectl.fails("wait", "-n", "team-a", "allocation/memory", "--for=condition=Ready", "--timeout=1s")
    assert "timed out" in unmet
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Usable",
        "message": "Use it.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    patch = json.dumps({"status": {"conditions": [condition]}})
    kubectl("patch", "allocation/memory", "-n", "team-a", "--subresource=status", "--type=merge", "-p", patch)
    assert "condition met" in kubectl(
        "wait", "-n", "team-a", "allocation/memory", "--for=condition=Ready", "--timeout=30s"
    )
