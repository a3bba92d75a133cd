"""Rows of the benchmarks: one shape, medians, and a figure that reads the same in the table and in the file."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "hack" / "bench"
sys.path.append(str(BENCH))

import _rows  # noqa: E402

PROGRAMS = sorted(BENCH.glob("[a-z]*.py"))


def test_a_row_has_the_median_and_what_it_is_compared_with() -> None:
    row = _rows.compared("read", "ms", [3.0, 1.0, 2.0], "nft", [4.0])
    assert row == {
        "name": "read",
        "value": 2.0,
        "unit": "ms",
        "repetitions": 3,
        "baseline_name": "nft",
        "baseline_value": 4.0,
        "ratio": 0.5,
    }
    assert _rows.line(row).split() == ["read", "2", "ms", "nft", "4", "ratio", "0.5"]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert _rows.percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_small_and_large_figures_keep_their_digits() -> None:
    assert _rows.single("a", "s", 0.000123456)["value"] == 0.0001235
    assert "12,345,600" in _rows.line(_rows.single("a", "B", 12345600))


def test_what_is_printed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "ROOT", tmp_path)
    rows = _rows.publish("area", iter([_rows.single("µ", "µs", 1.5)]))
    written = json.loads((tmp_path / "build/bench/area.jsonl").read_text())
    assert written == rows[0] | {"commit": _rows.commit()}


def test_memory_of_a_process_is_what_the_kernel_says() -> None:
    assert 0 < _rows.resident(os.getpid(), "RssAnon") <= _rows.resident(os.getpid())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_every_benchmark_publishes_under_its_own_name_and_hides_no_module(program: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(program.read_text())) if isinstance(node, ast.Call)]
    published = [call.args[0] for call in calls if getattr(call.func, "id", "") == "publish"]
    assert [ast.literal_eval(area) for area in published] == [program.stem]
    assert program.stem not in sys.stdlib_module_names
