"""`kubectl hypermesh ledger` from a user's machine, by kubectl port-forward, against the ledger in the cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .support import NAMESPACE, Mesh, allocation, eventually


def shown(mesh: Mesh, *words: str) -> Any:
    return json.loads(mesh.plugin("ledger", *words, "-o", "json").stdout)


def test_status_and_validators_are_those_of_the_running_pod(mesh: Mesh) -> None:
    before = mesh.ledger()
    status = shown(mesh, "status")
    assert status["chainID"] == before["chain"]
    assert status["height"] >= before["height"]
    assert (status["ready"], status["pod"]) == (True, "hypermesh-ledger-0"), status["notReady"]
    (validator,) = shown(mesh, "validators")
    assert validator["signedBlocks"] > 0


def test_an_allocation_is_followed_to_its_transaction_tickets_and_proof(mesh: Mesh, tmp_path: Path) -> None:
    name = "looked-at"
    mesh.apply([allocation(name, "memory", "64Mi")])
    try:
        mesh.kubectl("wait", "--for=condition=Ready", f"allocation/{name}", "--timeout=120s", timeout=150)
        (mapping,) = (item for item in mesh.objects("proxymappings") if item["spec"]["allocationName"] == name)
        spec = mapping["spec"]
        found = shown(mesh, "tx", spec["transactionHash"])
        assert (found["result"], found["kind"], found["signature"]) == ("Committed", "allocate", "verified")
        assert (found["height"], found["operation"]["name"]) == (spec["ledgerHeight"], name)
        for named in (spec["nodeName"], spec["assetName"]):
            tickets = {each["proof"]: each["fresh"] for each in shown(mesh, "proofs", named)["tickets"]}
            assert dict.fromkeys(("space", "stake", "work", "time"), True).items() <= tickets.items()
        file = tmp_path / "bundle.json"

        def exported() -> str | None:
            """A header covers the newest block only when the next one is there."""
            mesh.plugin("ledger", "export", "allocation", name, "-f", str(file))
            return str(json.loads(file.read_text())["value"] or "") or None

        eventually("the bundle shows the allocation", exported, seconds=60, pause=1)
        trusted = json.loads(file.read_text())["signed_header"]["header"]["validators_hash"]
        told = mesh.plugin("ledger", "export", "allocation", name, "-f", str(file), "--validators", trusted).stderr
        assert "SHOWN" in told
    finally:
        mesh.kubectl("delete", f"allocation/{name}", "--timeout=60s")


def test_the_role_for_looking_is_enough_and_no_more(mesh: Mesh) -> None:
    binding = ("-n", NAMESPACE, "create", "rolebinding", "looker", "--role=hypermesh-ledger-look", "--user=looker")
    mesh.kubectl(*binding)

    def may(*words: str) -> bool:
        answer = mesh.kubectl("-n", NAMESPACE, "auth", "can-i", *words, "--as=looker", check=False)
        return answer.strip().splitlines()[-1] == "yes"

    try:
        assert eventually("the binding counts", lambda: may("list", "pods"), seconds=30)
        assert may("get", "configmaps/hypermesh-trust")
        assert may("create", "pods/hypermesh-ledger-0", "--subresource=portforward")
        assert not may("create", "pods/hypermesh-trustchain-0", "--subresource=portforward")
        assert not may("get", "secrets")
        assert not may("create", "pods/hypermesh-ledger-0", "--subresource=exec")
    finally:
        mesh.kubectl("-n", NAMESPACE, "delete", "rolebinding", "looker")
