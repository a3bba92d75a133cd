"""How every benchmark shows and keeps its figures: a table, and the same as JSON lines under build/bench/."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
"""name, value, unit, repetitions; baseline_name, baseline_value and ratio where something is compared."""


def commit() -> str:
    """Short id of the measured commit; empty outside a checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def line(row: Row) -> str:
    """One line of the table."""
    text = f"{row['name']:<58} {row['value']:>12} {row['unit']:<10}"
    if "baseline_name" in row:
        text += f" {row['baseline_name']} {row['baseline_value']}  ratio {row['ratio']}"
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
            file.write(json.dumps(row | {"commit": measured}) + "\n")
            kept.append(row)
    return kept
