"""What ProxyMappings say: merged as conditions are, written only when something changes, checked against the ledger."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from typing import Any

import pytest

from hypermesh.v1 import ledger_pb2
from hypermesh_agent.proxy.outcomes import Observed, Outcome, programmed, status_patch

MEMORY = ledger_pb2.ASSET_TYPE_MEMORY
ADDRESS = IPv6Address("fd12:3456:789a:1:1122:3340::1")
NODE = IPv6Address("2001:db8::1")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OBSERVED = Observed(NODE.packed, 7443, 1_767_272_400_000, 1_767_268_800_000)


def mapping(**status: Any) -> dict[str, Any]:
    spec = {"address": str(ADDRESS), "port": 7443}
    return {"metadata": {"name": "scratch", "generation": 3}, "spec": spec, "status": status}


def after(item: dict[str, Any], patch: dict[str, Any] | None) -> dict[str, Any]:
    changed = copy.deepcopy(item)
    changed["status"] |= {key: value for key, value in (patch or {"status": {}})["status"].items() if value is not None}
    return changed


def test_programmed_shows_what_was_read_back() -> None:
    patch = status_patch(mapping(), programmed(ADDRESS.packed, 7443, MEMORY, OBSERVED, "node-1"), NOON)
    assert patch is not None
    status = patch["status"]
    assert status["observed"] == {
        "targetAddress": "2001:db8::1",
        "targetPort": 7443,
        "expirationTime": "2026-01-01T13:00:00Z",
        "programmedTime": "2026-01-01T12:00:00Z",
    }
    (condition,) = status["conditions"]
    assert condition["type"] == condition["reason"] == "Programmed"
    assert (condition["status"], condition["observedGeneration"], status["observedGeneration"]) == ("True", 3, 3)
    assert f"[{ADDRESS}]:7443 to [2001:db8::1]:7443" in condition["message"]


@pytest.mark.parametrize(
    ("type_", "said"),
    [("MEMORY", "its memory"), ("STORAGE", "its blocks"), ("CPU", "processor time"), ("GPU", "no driver")],
)
def test_what_is_enforced_is_said_for_each_type(type_: str, said: str) -> None:
    outcome = programmed(ADDRESS.packed, 7443, ledger_pb2.AssetType.Value(f"ASSET_TYPE_{type_}"), OBSERVED, "node-1")
    assert said in outcome.message


def test_the_same_again_is_not_written_even_when_programmed_later() -> None:
    outcome = programmed(ADDRESS.packed, 7443, MEMORY, OBSERVED, "node-1")
    first = after(mapping(), status_patch(mapping(), outcome, NOON))
    assert status_patch(first, outcome, NOON + timedelta(hours=1)) is None
    later = Observed(NODE.packed, 7443, OBSERVED.expires_ms, OBSERVED.programmed_ms + 60_000)
    again = programmed(ADDRESS.packed, 7443, MEMORY, later, "node-1")
    assert status_patch(first, again, NOON) is None


def test_a_failure_takes_the_observation_away_and_keeps_no_old_time() -> None:
    outcome = programmed(ADDRESS.packed, 7443, MEMORY, OBSERVED, "node-1")
    first = after(mapping(), status_patch(mapping(), outcome, NOON))
    refused = Outcome(ADDRESS.packed, 7443, "BadSignature", "node node-1 refuses it")
    patch = status_patch(first, refused, NOON + timedelta(hours=1))
    assert patch is not None
    assert patch["status"]["observed"] is None
    (condition,) = patch["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "BadSignature")
    assert condition["lastTransitionTime"] == "2026-01-01T13:00:00Z"


def test_a_mapping_that_says_something_else_than_the_ledger_is_told_so() -> None:
    item = mapping()
    item["spec"]["address"] = "fd12:3456:789a:1:1122:3340::2"
    patch = status_patch(item, programmed(ADDRESS.packed, 7443, MEMORY, OBSERVED, "node-1"), NOON)
    assert patch is not None
    assert patch["status"]["observed"] is None
    (condition,) = patch["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "MappingDiffers")


def test_another_spelling_of_the_address_is_the_same_address() -> None:
    item = mapping()
    item["spec"]["address"] = ADDRESS.exploded
    patch = status_patch(item, programmed(ADDRESS.packed, 7443, MEMORY, OBSERVED, "node-1"), NOON)
    assert patch is not None
    assert patch["status"]["conditions"][0]["status"] == "True"
