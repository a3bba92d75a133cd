"""Rendering of each command, from objects as the API server returns them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

import pytest

from hypermesh.addressing import AddressType, asset_address
from kubectl_hypermesh.commands import access, assets, check, proxy, status
from kubectl_hypermesh.complete import candidates
from kubectl_hypermesh.main import build_parser

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
KEY = bytes(range(32))
ADDRESS = asset_address(b"\x12\x34\x56\x78\x9a", 1, KEY, 0, AddressType.MEMORY, "node:0", 7)


def asset(name: str, kind: str = "memory", ready: str = "True", free: str = "6Gi") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-02T11:00:00Z"},
        "spec": {"type": kind, "nodeName": "node-1", "sharing": {"privacyLevel": "Public"}},
        "status": {
            "capacity": {"memory": "8Gi"},
            "allocated": {"memory": "2Gi"},
            "free": {"memory": free},
            "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m"}],
        },
    }


def mapping(programmed: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "scratch", "namespace": "team-a", "creationTimestamp": "2026-01-02T11:00:00Z"},
        "spec": {
            "address": str(ADDRESS),
            "port": 7443,
            "allocationName": "scratch",
            "assetName": "node-1-memory-0",
            "nodeName": "node-1",
        },
        "status": {"conditions": [{"type": "Programmed", "status": programmed}]},
    }


def test_assets_are_sorted_and_wide_adds_columns() -> None:
    text = assets.render([asset("z"), asset("a")], wide=False, now=NOW)
    assert [line.split()[0] for line in text.splitlines()] == ["NAME", "a", "z"]
    assert "ADDRESS" not in text
    assert "ADDRESS" in assets.render([asset("z")], wide=True, now=NOW)


def test_an_asset_without_status_is_shown_not_dropped() -> None:
    bare = asset("new")
    del bare["status"]
    assert "Unknown" in assets.render([bare], wide=True, now=NOW)


def test_proxy_list_names_the_allocation_behind_each_address() -> None:
    line = proxy.render([mapping()], wide=False, now=NOW).splitlines()[1]
    assert line.split()[:4] == [str(ADDRESS), "7443", "team-a", "scratch"]


def test_resolve_takes_the_address_apart() -> None:
    answer = proxy.describe(IPv6Address(str(ADDRESS)), mapping(), None)
    assert answer["federation"] == "123456789a"
    assert answer["cluster"] == 1
    assert answer["type"] == "memory"
    assert answer["allocation"] == "team-a/scratch"
    assert answer["nodePrefix"].endswith("/88")


def test_status_sums_base_units_over_assets() -> None:
    summary = status.summarize({}, {"x": "1/1"}, [asset("a"), asset("b", ready="False")], [], [mapping("False")])
    assert summary["hardware"]["memory"] == {
        "assets": 2,
        "ready": 1,
        "capacity": "16Gi",
        "allocated": "4Gi",
        "free": "12Gi",
    }
    assert summary["proxyMappings"] == {"total": 1, "programmed": 0}
    assert "not founded yet" in status.render(summary)


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("4096", 4096), ("64Ki", 65536), ("2Gi", 2 << 30)])
def test_byte_counts(text: str, size: int) -> None:
    assert access._size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5Mi", "Mi", "12k", "0x10"])
def test_wrong_byte_counts_say_what_to_write(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 4096, 64Ki or 1Mi"):
        access._size(text)


def test_durations() -> None:
    assert check._seconds("2m") == 120
    assert check._seconds("1m30s") == 90
    with pytest.raises(argparse.ArgumentTypeError):
        check._seconds("soon")


def test_completion_offers_commands_flags_and_values() -> None:
    assert "check" in candidates([""])
    assert candidates(["pr"]) == ["proxy"]
    assert candidates(["proxy", ""]) == ["list", "resolve"]
    assert "--wait" in candidates(["check", "--w"])
    assert candidates(["assets", "-o", ""]) == ["json", "table", "wide", "yaml"]


def test_every_command_has_help() -> None:
    parts = [["ledger", part] for part in ("status", "validators", "tx", "proofs", "export")]
    for words in (["check"], ["status"], ["assets"], ["proxy", "list"], ["read"], ["write"], *parts):
        with pytest.raises(SystemExit) as stop:
            build_parser().parse_args([*words, "--help"])
        assert stop.value.code == 0
