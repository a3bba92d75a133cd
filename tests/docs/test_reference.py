"""docs/reference/ says what the programs do today, all of it is there, and the README leads to it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "hack"))

import reference  # noqa: E402

from hypermesh_agent.metrics import Metrics as AgentMetrics  # noqa: E402
from hypermesh_ledger.metrics import Metrics as LedgerMetrics  # noqa: E402

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date_and_linked(name: str) -> None:
    written = reference.TARGET / name
    assert written.exists(), "run `make generate`"
    assert written.read_text() == PAGES[name], "run `make generate`"
    assert f"(docs/reference/{name})" in (ROOT / "README.md").read_text()


def test_no_page_is_left_over() -> None:
    assert {path.name for path in reference.TARGET.iterdir()} == set(PAGES), "run `make generate`"


def test_every_command_is_there() -> None:
    commands = [name for name, _, _ in reference.leaf_commands(reference.plugin_parser(), "")]
    assert {
        "check",
        "status",
        "assets",
        "proxy list",
        "proxy resolve",
        "read",
        "write",
        "ledger status",
        "ledger tx",
    } <= set(commands)
    for name in commands:
        assert f"## {name}\n" in PAGES["cli.md"]


def test_the_sources_declare_what_live_processes_hold() -> None:
    """Both ways, but for gauges that the agent makes when it starts to follow a value."""
    for folder in reference.PROCESSES.values():
        for path in (ROOT / folder).rglob("*.py"):
            if "prometheus_client" in path.read_text():
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts[1:]))
    registry = CollectorRegistry()
    AgentMetrics(registry)
    LedgerMetrics(registry)
    families = [*registry.collect(), *(item for item in REGISTRY.collect() if item.name.startswith("hypermesh_"))]
    rows = {line.split("`")[1]: line for line in PAGES["metrics.md"].splitlines() if line.startswith("| `hypermesh_")}
    live = set()
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        live.add(name)
        assert rows.get(name, "").startswith(f"| `{name}` | {family.type} |"), name
        assert rows[name].endswith(f" {family.documentation} |")
    assert {name.split("_")[1] for name in live} == {"agent", "ledger", "operator", "trustchain"}
    followed = [rows[name] for name in rows.keys() - live]
    assert all(row.startswith("| `hypermesh_agent_") and "| gauge |  |" in row for row in followed), followed


def test_a_table_stays_a_table_whatever_it_holds() -> None:
    assert reference.table(("a",), [("x | <y>\nz",)]) == "| a |\n|---|\n| x \\| &lt;y> z |"
    assert reference.table(("a",), []) == ""
