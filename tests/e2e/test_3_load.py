"""500 Allocations at once: all Ready or refused with a reason, and API server, ledger and kernel agree to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .support import Mesh, allocation, amount, condition, eventually, is_true

NAMESPACE = "load"
FITTING, TOO_LARGE = 480, 20


@pytest.fixture
def namespace(mesh: Mesh) -> Iterator[str]:
    mesh.kubectl("create", "namespace", NAMESPACE, check=False)
    yield NAMESPACE
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout=300)


def refused(item: dict[str, Any]) -> bool:
    return condition(item, "Ready").get("reason") == "NoAssetFits"


def settled(mesh: Mesh, count: int) -> list[dict[str, Any]] | None:
    """All Allocations of the namespace, once each is Ready or finds no asset that fits."""
    items = mesh.objects("allocations", NAMESPACE)
    return items if sum(is_true(item, "Ready") or refused(item) for item in items) == count else None


def test_none_lost_none_over_reserved(mesh: Mesh, namespace: str) -> None:
    documents = [allocation(f"small-{i}", "memory", "1Mi", namespace) for i in range(FITTING)]
    largest = max(asset["capacity"] for asset in mesh.ledger()["assets"] if asset["type"] == "memory")
    documents += [allocation(f"huge-{i}", "memory", str(largest + 1), namespace) for i in range(TOO_LARGE)]
    mesh.apply(documents)
    items = eventually(
        "every Allocation is Ready or refused", lambda: settled(mesh, len(documents)), seconds=240, pause=1
    )
    ready = [item for item in items if is_true(item, "Ready")]
    left = [item for item in items if not is_true(item, "Ready")]
    assert len(ready) == FITTING
    assert len(left) == TOO_LARGE
    for item in left:
        assert "too small" in condition(item, "Ready")["message"]
    addresses = {item["status"]["proxyAddress"] for item in ready}
    assert len(addresses) == FITTING

    granted = sum(amount("memory", item["status"]["granted"]) for item in ready)
    state = mesh.ledger()
    memory_assets = [asset for asset in state["assets"] if asset["type"] == "memory"]
    others = [
        entry
        for entry in state["allocations"]
        if entry["state"] == "ACTIVE" and entry["type"] == "memory" and entry["namespace"] != namespace
    ]
    reserved = sum(asset["reserved"] for asset in memory_assets)
    assert granted == FITTING << 20
    assert reserved == granted + sum(entry["amount"] for entry in others)
    assert all(asset["reserved"] <= asset["capacity"] for asset in state["assets"])

    table = json.loads(mesh.node_exec("node-1", "nft", "-j", "list", "table", "ip6", "hypermesh"))
    assert addresses <= {text for text in json.dumps(table).split('"') if text.startswith("fd")}


def test_all_is_given_back(mesh: Mesh) -> None:
    def empty() -> bool:
        state = mesh.ledger()
        left = [a for a in state["allocations"] if a["state"] == "ACTIVE" and a["namespace"] == NAMESPACE]
        return not left

    eventually("the ledger holds nothing of the namespace", empty, seconds=60)
    assert not mesh.objects("proxymappings", NAMESPACE)
