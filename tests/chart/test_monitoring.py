"""Dashboards and alerts: every expression is PromQL, and asks only for metrics and labels that the processes expose."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

from hypermesh_ledger.metrics import Metrics

from .conftest import CHART, ROOT, helm_template

sys.path.append(str(ROOT / "hack"))
import manifests

ON = "monitoring.dashboards.enabled=true,monitoring.rules.enabled=true,monitoring.podMonitor.enabled=true"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
RULES = sorted((CHART / "files" / "rules").glob("*.yaml"))
GIVEN = {"instance", "le"}
"""Labels that Prometheus and histograms add."""


def dashboard(path: Any) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def alerts() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for path in DASHBOARDS:
        for panel in dashboard(path)["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (rule["expr"] for rule in alerts())


def exposed() -> dict[str, set[str]]:
    """Sample name -> labels, of what the ledger's process exposes (and of any Python process)."""
    registry = CollectorRegistry()
    Metrics(registry)
    found: dict[str, set[str]] = {}
    for family in [*registry.collect(), *REGISTRY.collect()]:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        for suffix in suffixes:
            found[family.name + suffix] = set()
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # Labels whose values only come with use.
    found["hypermesh_ledger_refused_total"] |= {"reason", "where"}
    found["hypermesh_ledger_validator_signed_ratio"] |= {"validator"}
    found["hypermesh_ledger_pool"] |= {"class"}
    for name in ("evicted", "expired"):
        found[f"hypermesh_ledger_pool_{name}_total"] |= {"class"}
    return found


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_the_expression_asks_for_what_there_is(expression: str) -> None:
    promql_parser.parse(expression)  # raises ValueError, also for wrong types
    metrics = exposed()
    names = set(re.findall(r"\b(?:hypermesh|process)_\w+", expression))
    assert names
    assert names <= metrics.keys()
    labels = {
        label.strip() for text in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in text.split(",")
    } | set(re.findall(r"(\w+)=~?\"", expression))
    assert labels - GIVEN <= set().union(*(metrics[name] for name in names))


def test_a_wrong_expression_is_noticed() -> None:
    with pytest.raises(ValueError, match="expected type"):
        promql_parser.parse("rate(hypermesh_ledger_height)")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_have_a_place_a_meaning_and_legends_of_labels(path: Any) -> None:
    shown = dashboard(path)
    panels = [panel for panel in shown["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in shown["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in shown["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    variables = {item["name"] for item in shown["templating"]["list"]}
    for panel in panels:
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            used = re.findall(r"\$\{?(\w+)", target["expr"] + target["datasource"]["uid"])
            assert set(used) <= variables, panel["title"]


def test_every_alert_has_a_severity_a_sentence_and_a_runbook() -> None:
    runbook = (ROOT / "docs" / "runbooks" / "ledger.md").read_text()
    headings = set(re.findall(r"^## (Hypermesh\w+)$", runbook, re.MULTILINE))
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    assert set(names) == headings
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"docs/runbooks/ledger.md#{rule['alert'].lower()}"
        assert re.fullmatch(r"\d+m", rule["for"])


def rendered(*values: str) -> list[dict[str, Any]]:
    done = helm_template(*values)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def test_nothing_of_it_is_installed_unless_asked_for() -> None:
    assert not [item for item in rendered() if item["metadata"]["name"] == "hypermesh-dashboards"]
    assert not [item for item in rendered() if item["kind"] in manifests.FOREIGN]


def test_what_is_asked_for_is_what_the_files_say() -> None:
    items = rendered(ON, "monitoring.rules.labels.release=stack")
    (config,) = (item for item in items if item["metadata"]["name"] == "hypermesh-dashboards")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: json.loads(text) for name, text in config["data"].items()} == {
        f"hypermesh-{path.name}": dashboard(path) for path in DASHBOARDS
    }
    (rules,) = (item for item in items if item["kind"] == "PrometheusRule")
    assert rules["metadata"]["labels"]["release"] == "stack"
    assert [rule for group in rules["spec"]["groups"] for rule in group["rules"]] == alerts()


def test_the_pod_monitor_finds_every_process_by_labels_and_port() -> None:
    items = rendered(ON)
    (monitor,) = (item for item in items if item["kind"] == "PodMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    pods = [item["spec"]["template"] for item in items if item["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
    assert len(pods) >= 4
    for pod in pods:
        assert wanted.items() <= pod["metadata"]["labels"].items()
        ports = [port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())]
        assert endpoint["port"] in ports


@pytest.mark.parametrize("number", [1, 4])
def test_who_may_look_reaches_the_ledgers_pods_and_no_other(number: int) -> None:
    (role,) = (
        item for item in rendered(f"ledger.validators={number}") if item["metadata"]["name"] == "hypermesh-ledger-look"
    )
    (forward,) = (rule for rule in role["rules"] if "pods/portforward" in rule["resources"])
    assert forward["resourceNames"] == [f"hypermesh-ledger-{index}" for index in range(number)]
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"create", "get", "list"}
