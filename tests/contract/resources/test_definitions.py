"""The CRDs keep the API conventions, for every field there is and every field somebody adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kubectl import Kubectl

CRDS = sorted((Path(__file__).resolve().parents[3] / "crds").glob("*.yaml"))
KUBERNETES_OWN = {"apiVersion", "kind", "metadata"}


def load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of a schema and of its lists and maps, by path."""
    for name, child in (schema.get("properties") or {}).items():
        if not path and name in KUBERNETES_OWN:
            continue
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        child = schema.get(key)
        if isinstance(child, dict):
            yield f"{path}{mark}", child
            yield from fields(child, f"{path}{mark}")


FIELDS = [
    pytest.param(path.stem, name, schema, id=f"{path.stem}{name}")
    for path in CRDS
    for name, schema in fields(load(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
]


@pytest.mark.parametrize(("crd", "name", "schema"), FIELDS)
def test_field_is_described_and_bounded(crd: str, name: str, schema: dict[str, Any]) -> None:
    assert len(schema.get("description", "")) >= 5, "kubectl explain would say nothing"
    kind = schema.get("type")
    assert kind != "number", "floats lose amounts"
    if kind == "string":
        assert "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time"
    if kind == "array":
        assert "maxItems" in schema
        assert "x-kubernetes-list-type" in schema
    if isinstance(schema.get("additionalProperties"), dict):
        assert "maxProperties" in schema


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_definition_keeps_conventions(path: Path) -> None:
    spec = load(path)["spec"]
    version = spec["versions"][0]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert version["subresources"] == {"status": {}}
    assert spec["names"]["categories"] == ["hypermesh"]
    assert spec["names"]["shortNames"]
    assert version["selectableFields"]
    assert "phase" not in status
    assert "observedGeneration" in status
    conditions = status["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    columns = version["additionalPrinterColumns"]
    assert all(column.get("description") for column in columns)
    assert any(column.get("priority") == 1 and column["name"] == "Message" for column in columns)
    assert any(column.get("priority") == 1 and column["name"] in ("Address", "Target") for column in columns)


def rules(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("x-kubernetes-validations") or ()
    for _, child in fields({"properties": {"it": schema}}):
        if child is not schema:
            yield from child.get("x-kubernetes-validations") or ()


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_every_rule_says_what_to_write(path: Path) -> None:
    schema = load(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found = list(rules(schema))
    assert found
    for rule in found:
        message = rule.get("message") or rule.get("messageExpression") or ""
        assert len(message) > 20, f"{rule['rule']} is refused without a word"
        assert "failed rule" not in message


@pytest.mark.parametrize("kind", ["assets", "allocations", "proxymappings"])
def test_explain_tells_of_every_field(kubectl: Kubectl, kind: str) -> None:
    path = next(path for path in CRDS if path.stem == kind)
    schema = load(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name, field in fields(schema):
        if "[]" in name or "{}" in name:
            continue
        told = " ".join(kubectl("explain", f"{kind}{name}").split())
        first = " ".join(field["description"].split()[:4])
        assert first in told, f"kubectl explain {kind}{name} says: {told}"


@pytest.mark.parametrize(
    ("short", "columns", "wide"),
    [
        ("ast", ["TYPE", "NODE", "CAPACITY", "FREE", "READY", "AGE"], ["ADDRESS", "MESSAGE"]),
        ("alloc", ["TYPE", "AMOUNT", "NODE", "READY", "REASON", "AGE"], ["ADDRESS", "EXPIRES", "MESSAGE"]),
        ("pmap", ["ADDRESS", "NODE", "PROGRAMMED", "AGE"], ["EXPIRES", "MESSAGE"]),
    ],
)
def test_columns(kubectl: Kubectl, short: str, columns: list[str], wide: list[str]) -> None:
    path = next(path for path in CRDS if load(path)["spec"]["names"]["shortNames"] == [short])
    sample = {"ast": "asset", "alloc": "allocation-memory", "pmap": "proxymapping"}[short]
    kubectl("apply", "-f", str(path.parents[1] / "samples" / f"{sample}.yaml"))
    narrow_header = kubectl("get", short).splitlines()[0].split()
    wide_header = kubectl("get", short, "-o", "wide").splitlines()[0].split()
    assert narrow_header == ["NAME", *columns]
    assert set(wide) <= set(wide_header)
    assert sample.split("-")[0] in kubectl("get", "hypermesh", "-o", "name")
