"""Tables as kubectl prints them, JSON and YAML for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

FORMATS = ("table", "wide", "json", "yaml")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart; no trailing blanks."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def structured(value: Any, form: str) -> str:
    """`value` as JSON or YAML text; `form` is "json" or "yaml"."""
    if form == "yaml":
        return yaml.safe_dump(value, sort_keys=False).rstrip("\n")
    return json.dumps(value, indent=2)


def pairs(lines: Sequence[tuple[str, str]]) -> str:
    """Facts with their names, the values in one column; a name that repeats is written once."""
    width = max(len(name) for name, _ in lines)
    names = ["" if index and lines[index - 1][0] == name else name for index, (name, _) in enumerate(lines)]
    return "\n".join(f"{name:<{width}}   {value}" for name, (_, value) in zip(names, lines, strict=True))


COLOURS = {"green": "32", "yellow": "33", "red": "31"}


def painted(text: str, colour: str) -> str:
    """In colour on a terminal that wants it (https://no-color.org), else as it is."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def is_structured(form: str) -> bool:
    return form in ("json", "yaml")


def age(timestamp: str | None, now: datetime) -> str:
    """kubectl's short age of an RFC 3339 time: 42s, 5m, 3h, 12d."""
    if not timestamp:
        return "<unknown>"
    return short_time(int((now - parse_time(timestamp)).total_seconds()))


def short_time(seconds: int) -> str:
    """As kubectl writes a time that has passed; never below 0s."""
    seconds = max(0, seconds)
    for size, letter in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{letter}"
    return f"{seconds}s"


def parse_time(timestamp: str) -> datetime:
    """An RFC 3339 time as Kubernetes writes it."""
    return datetime.fromisoformat(timestamp).astimezone(UTC)


def condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """The named condition of an object, or an empty one of status Unknown."""
    for entry in item.get("status", {}).get("conditions", []):
        if entry["type"] == kind:
            return dict(entry)
    return {"type": kind, "status": "Unknown", "reason": "", "message": ""}


def quantities(values: dict[str, str] | None) -> str:
    """A capacity map in one cell; there is one quantity a type."""
    return ", ".join(str(value) for value in (values or {}).values()) or "-"
