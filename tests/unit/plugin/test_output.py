"""Tables, ages and structured output of the plugin."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import yaml

from kubectl_hypermesh.output import age, condition, quantities, structured, table

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def test_columns_line_up_and_rows_have_no_trailing_blanks() -> None:
    text = table(["NAME", "X"], [["a-long-name", "1"], ["b", ""]])
    assert text.splitlines() == ["NAME          X", "a-long-name   1", "b"]


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        ("2026-01-02T11:59:18Z", "42s"),
        ("2026-01-02T11:58:01Z", "119s"),
        ("2026-01-02T11:55:00Z", "5m"),
        ("2026-01-02T09:00:00Z", "3h"),
        ("2025-12-21T12:00:00Z", "12d"),
        ("2026-01-02T13:00:00+02:00", "60m"),
        ("2026-01-02T12:00:05Z", "0s"),
        (None, "<unknown>"),
    ],
)
def test_age_is_short_as_in_kubectl(then: str | None, shown: str) -> None:
    assert age(then, NOW) == shown


def test_a_missing_condition_is_unknown() -> None:
    assert condition({}, "Ready")["status"] == "Unknown"
    item = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert condition(item, "Ready")["status"] == "True"


def test_quantities_of_nothing_is_a_dash() -> None:
    assert quantities(None) == "-"
    assert quantities({"memory": "4Gi"}) == "4Gi"


def test_json_and_yaml_say_the_same() -> None:
    value = {"b": [1, {"c": "x"}], "a": None}
    assert json.loads(structured(value, "json")) == value
    assert yaml.safe_load(structured(value, "yaml")) == value
