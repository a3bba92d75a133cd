"""Amounts are exact integers both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hypermesh import quantities
from hypermesh.quantities import GRAINS_PER_CAESAR, QuantityInvalid


@pytest.mark.parametrize(
    ("resource", "text", "amount"),
    [
        ("cores", "2", 2000),
        ("cores", 2, 2000),
        ("cores", "250m", 250),
        ("cores", "0.25", 250),
        ("cores", "100u", 1),
        ("memory", "1Gi", 1 << 30),
        ("memory", "1.5Gi", 3 << 29),
        ("memory", "1.1Gi", 1181116007),
        ("memory", "1k", 1000),
        ("memory", "12e6", 12_000_000),
        ("memory", "1E", 10**18),
        ("storage", "0", 0),
        ("gpuMemory", ".5Ki", 512),
    ],
)
def test_parse(resource: str, text: str | int, amount: int) -> None:
    assert quantities.parse(resource, text) == amount


@pytest.mark.parametrize("text", ["", "1GB", "lots", "1 Gi", "-1", "1e", "0x10", "1.2.3", "Gi"])
def test_refuses_and_says_what_to_write(text: str) -> None:
    with pytest.raises(QuantityInvalid, match="write"):
        quantities.parse("memory", text)


@given(some.sampled_from(["cores", "memory", "storage", "gpuMemory"]), some.integers(0, 2**63 - 1))
def test_render_is_exact(resource: str, amount: int) -> None:
    assert quantities.parse(resource, quantities.render(resource, amount)) == amount


@pytest.mark.parametrize(
    ("resource", "amount", "exact", "short"),
    [
        ("cores", 1500, "1500m", "1500m"),
        ("cores", 4000, "4", "4"),
        ("memory", 0, "0", "0"),
        ("memory", 1 << 30, "1Gi", "1Gi"),
        ("memory", (1 << 30) + 1, "1073741825", "1Gi"),
        ("memory", 2_147_000_001, "2147000001", "1.9Gi"),
    ],
)
def test_render(resource: str, amount: int, exact: str, short: str) -> None:
    assert quantities.render(resource, amount) == exact
    assert quantities.render_short(resource, amount) == short


@given(some.integers(0, 10**18 * GRAINS_PER_CAESAR - 1))
def test_caesar_is_exact(grains: int) -> None:
    assert quantities.parse_caesar(quantities.render_caesar(grains)) == grains


@pytest.mark.parametrize(("text", "grains"), [("0", 0), ("0.25", 25 * 10**16), ("2", 2 * GRAINS_PER_CAESAR)])
def test_parse_caesar(text: str, grains: int) -> None:
    assert quantities.parse_caesar(text) == grains


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "free", "1.0000000000000000001"])
def test_refuses_caesar(text: str) -> None:
    with pytest.raises(QuantityInvalid, match="write"):
        quantities.parse_caesar(text)


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("1h1m1s", 3661)])
def test_parse_duration(text: str, seconds: int) -> None:
    assert quantities.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1d", "30m1h", "-1h", "1.5h"])
def test_refuses_duration(text: str) -> None:
    with pytest.raises(QuantityInvalid, match="write"):
        quantities.parse_duration(text)


def test_a_share_is_priced_rounded_up_and_a_share_of_nothing_is_not() -> None:
    assert quantities.hourly_price(15, 1001, 8000) == 2
    with pytest.raises(QuantityInvalid, match="capacity of 0"):
        quantities.hourly_price(15, 1, 0)
