"""How every benchmark makes, shows and keeps its figures: a table, and the same as JSON lines under build/bench/."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 4
Row = dict[str, Any]
"""name, value, unit, repetitions; baseline_name, baseline_value and ratio where something is compared."""


def single(name: str, unit: str, *values: float) -> Row:
    """A row without something to compare: the median."""
    return {"name": name, "value": _rounded(statistics.median(values)), "unit": unit, "repetitions": len(values)}


def compared(name: str, unit: str, values: Sequence[float], baseline: str, others: Sequence[float]) -> Row:
    """A row of two medians beside each other; ratio is value over baseline."""
    other = statistics.median(others)
    row = single(name, unit, *values)
    ratio = _rounded(statistics.median(values) / other)
    return row | {"baseline_name": baseline, "baseline_value": _rounded(other), "ratio": ratio}


def _rounded(value: float) -> float:
    """To so many significant digits, but never less than whole units."""
    return round(value, max(DIGITS - 1 - math.floor(math.log10(abs(value))), 0)) if value else 0.0


def percentile(values: Iterable[float], share: float) -> float:
    """By rank: the least value that at least this share of all values does not exceed, or the largest."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def resident(process: int, field: str = "VmRSS") -> int:
    """kB of memory that a process holds (proc_pid_status(5)); 0 for a kernel thread."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) if f"{field}:" in status else 0


def commit() -> str:
    """Short id of the measured commit; empty outside a checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def line(row: Row) -> str:
    """One line of the table."""
    text = f"{row['name']:<62} {row['value']:>10,.10g} {row['unit']:<10}"
    if "baseline_name" in row:
        text += f" {row['baseline_name']} {row['baseline_value']:,.10g}  ratio {row['ratio']:.10g}"
    return text.rstrip()


def publish(area: str, rows: Iterable[Row]) -> list[Row]:
    """Prints each row as it comes and writes build/bench/<area>.jsonl; returns all of them."""
    kept: list[Row] = []
    target = ROOT / "build" / "bench" / f"{area}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    measured = commit()
    with target.open("w") as file:
        for row in rows:
            print(line(row), flush=True)
            file.write(json.dumps(row | {"commit": measured}, ensure_ascii=False) + "\n")
            kept.append(row)
    return kept
