"""Assets as the cluster shows them: conditions, amounts, and when a write is worth it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import yaml
from agent_samples import CPU, DISK, IDLE_DISK, KEY, NODE, assets, record

from hypermesh.conditions import find
from hypermesh.v1 import ledger_pb2
from hypermesh_agent.hardware import Hardware, Kind
from hypermesh_agent.views import (
    Ledger,
    Problem,
    Proofs,
    asset_body,
    asset_status,
    differs,
    gone_status,
    same_body,
    with_sharing,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
PROOFS = Proofs(10, b"\1" * 32, b"\2" * 32, b"\3" * 32, b"\4" * 32, 1_700_000_000_000)
UNKNOWN = Ledger(record=None, proofs=None, epoch=10, grace=2, trust_score=5000)


def held(**changed: Any) -> Ledger:
    (cpu,) = assets(CPU)
    return replace(Ledger(record(cpu, reserved=1500), PROOFS, 10, 2, 5000), **changed)


def status(ledger: Ledger, present: dict[str, Any] | None = None, hardware: Hardware = CPU) -> dict[str, Any]:
    asset = next(item for item in assets(CPU, hardware) if item.hardware is hardware)
    return asset_status(asset, ledger, 4, present or {}, NOW)


def condition(shown: dict[str, Any], kind: str) -> tuple[str, str]:
    found = find(shown["conditions"], kind)
    assert found is not None
    return found["status"], found["reason"]


def test_a_new_asset_waits_and_says_for_what() -> None:
    shown = status(UNKNOWN)
    assert condition(shown, "Registered") == ("False", "Pending")
    assert condition(shown, "Proven") == ("False", "WaitingForTickets")
    assert condition(shown, "Ready") == ("False", "Pending")
    assert shown["capacity"] == shown["free"] == {"cores": "8"}
    assert "address" not in shown


def test_a_proxy_that_does_not_work_is_seen_at_every_asset() -> None:
    shown = status(held(serving="nftables table ip6 hypermesh: Operation not permitted"))
    assert condition(shown, "Ready") == ("False", "ProxyUnavailable")
    found = find(shown["conditions"], "Ready")
    assert found is not None
    assert "Operation not permitted" in found["message"]


def test_a_registered_and_proven_asset_is_ready() -> None:
    shown = status(held())
    assert condition(shown, "Ready") == ("True", "Ready")
    assert shown["allocated"] == {"cores": "1500m"}
    assert shown["free"] == {"cores": "6500m"}
    assert shown["trustScore"] == 50
    assert shown["revision"] == 3
    assert shown["proofs"]["provenTime"] == "2023-11-14T22:13:20Z"
    assert shown["address"].startswith("fd01:101:101:1:")


def test_stale_tickets_pause_and_refusals_are_shown() -> None:
    assert condition(status(held(epoch=12)), "Proven") == ("True", "TicketsFresh")
    assert condition(status(held(epoch=13)), "Ready") == ("False", "TicketsStale")
    paused = held()
    assert paused.record is not None
    paused.record.registration.sharing.paused = True
    assert condition(status(paused), "Ready") == ("False", "Paused")
    refused = replace(UNKNOWN, problem=Problem("AddressTaken", "in use"))
    assert condition(status(refused), "Registered") == ("False", "AddressTaken")


def test_a_disk_without_the_pool_says_so() -> None:
    shown = status(UNKNOWN, hardware=IDLE_DISK)
    assert condition(shown, "Ready") == ("False", "NothingToGive")
    assert shown["free"] == {"storage": "0"}


def test_an_unhealthy_gpu_is_not_ready() -> None:
    gpu = Hardware(Kind.GPU, "GPU-1", 10, 10, {"health": "row remapping failed; replace the GPU"})
    (asset,) = assets(gpu)
    shown = asset_status(asset, replace(held(), record=record(asset)), 1, {}, NOW)
    assert condition(shown, "Ready") == ("False", "HardwareUnhealthy")


def test_a_machine_at_rest_writes_nothing() -> None:
    reading = replace(CPU, detail={"frequency": {"maxMHz": 9}}, readings={"frequency": {"currentMHz": 1000}})
    faster = replace(reading, readings={"frequency": {"currentMHz": 2000}})
    (before,), (after,) = assets(reading), assets(faster)
    shown = asset_status(before, held(), 4, {}, NOW)
    assert shown["cpu"] == {"frequency": {"maxMHz": 9, "currentMHz": 1000}}
    newer = held(epoch=12, proofs=replace(PROOFS, epoch=12, space=b"\5" * 32))
    wanted = asset_status(after, newer, 4, shown, LATER)
    assert not differs(shown, wanted, 12, 2)
    assert wanted["conditions"] == shown["conditions"]  # times kept


def test_proofs_are_shown_again_before_those_shown_are_worthless() -> None:
    shown = status(held())
    wanted = status(held(epoch=13, proofs=replace(PROOFS, epoch=13)), shown)
    assert differs(shown, wanted, 13, 2)


def test_free_memory_pages_and_swap_are_readings() -> None:
    memory = Hardware(
        Kind.MEMORY,
        "m:numa0",
        100,
        90,
        {"hugePages": [{"size": "2Mi", "total": 5}], "swapTotal": "1Gi"},
        {"hugePages": [{"size": "2Mi", "total": 5, "free": 5}], "swapFree": "1Gi"},
    )
    less = replace(memory, readings={"hugePages": [{"size": "2Mi", "total": 5, "free": 1}], "swapFree": "5Mi"})
    shown, wanted = status(UNKNOWN, hardware=memory), status(UNKNOWN, hardware=less)
    assert not differs(shown, wanted, 1, 2)
    more = replace(memory, detail={"hugePages": [{"size": "2Mi", "total": 6}], "swapTotal": "1Gi"}, readings={})
    assert differs(shown, status(UNKNOWN, hardware=more), 1, 2)


def test_what_changed_is_written() -> None:
    shown = status(held())
    released = copy.deepcopy(held())
    assert released.record is not None
    released.record.reserved = 0
    assert differs(shown, status(released, shown), 10, 2)
    assert differs({}, shown, 10, 2)


def test_hardware_that_left_with_something_reserved() -> None:
    _, disk = assets(CPU, DISK)
    shown = status(held())
    wanted = gone_status(record(disk, reserved=100), 4, shown, NOW)
    assert condition(wanted, "Ready") == ("False", "HardwareGone")
    assert wanted["free"] == {"storage": "0"}


def test_the_body_is_compared_without_what_others_add() -> None:
    (cpu,) = assets(CPU)
    body = asset_body(cpu, "node1", {"apiVersion": "v1", "kind": "Node", "name": "node1", "uid": "u"})
    created = with_sharing(body, "Public")
    assert created["spec"]["sharing"] == {"privacyLevel": "Public"}
    assert "sharing" not in body["spec"]
    shown = copy.deepcopy(created)
    shown["metadata"]["labels"]["team"] = "a"
    assert same_body(shown, body)
    shown["metadata"]["labels"].pop("hypermesh.online/node")
    assert not same_body(shown, body)
    shown = copy.deepcopy(created)
    shown["metadata"]["ownerReferences"][0]["uid"] = "of a node that was made anew"
    assert not same_body(shown, body)


def test_every_field_of_the_status_is_in_the_schema() -> None:
    """The API server drops unknown fields silently; so none may be unknown."""
    from pathlib import Path

    crd = yaml.safe_load((Path(__file__).parents[3] / "crds" / "assets.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert NODE.key_id == KEY
    for shown in (status(held()), status(UNKNOWN, hardware=DISK)):
        assert unknown(shown, schema) == []


def unknown(value: Any, schema: dict[str, Any], path: str = "status") -> list[str]:
    if isinstance(value, list):
        return [problem for item in value for problem in unknown(item, schema["items"], path + "[]")]
    if not isinstance(value, dict):
        return []
    known, free = schema.get("properties", {}), schema.get("additionalProperties")
    problems = [f"{path}.{key}" for key in value if key not in known and free is None]
    for key, item in value.items():
        if key in known:
            problems += unknown(item, known[key], f"{path}.{key}")
    return problems


def test_live_statuses_of_this_machine_are_in_the_schema() -> None:
    import asyncio
    from pathlib import Path

    from hypermesh_agent.survey import Survey, SurveyConfig

    crd = yaml.safe_load((Path(__file__).parents[3] / "crds" / "assets.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    inventory = asyncio.run(Survey(SurveyConfig(pool=Path("/tmp"))).run())
    found = assets(*inventory.hardware)
    assert found
    for asset in found:
        assert unknown(asset_status(asset, UNKNOWN, 1, {}, NOW), schema) == []
    assert isinstance(held().record, ledger_pb2.AssetRecord)
