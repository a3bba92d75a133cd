"""Schemas for kubeconform: what is named in the source is allowed and nothing else, and each file stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import json_schemas
import yaml

CRDS = Path(__file__).resolve().parents[3] / "crds"
OPENAPI: dict[str, Any] = {
    "definitions": {
        "io.k8s.api.apps.v1.Deployment": {
            "description": "told",
            "type": "object",
            "properties": {
                "metadata": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                "port": {"$ref": "#/definitions/IntOrString"},
                "size": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
                "self": {"$ref": "#/definitions/io.k8s.api.apps.v1.Deployment"},
            },
            "x-kubernetes-group-version-kind": [{"group": "apps", "kind": "Deployment", "version": "v1"}],
        },
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {
            "type": "object",
            "properties": {
                "labels": {"type": "object", "additionalProperties": {"type": "string", "description": "x"}}
            },
        },
        "IntOrString": {"type": "string", "format": "int-or-string"},
        "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
        "Unreached": {"type": "object"},
    }
}


def test_an_object_is_closed_and_a_map_is_not() -> None:
    made = json_schemas.of_kubernetes(OPENAPI)["apps/deployment_v1.json"]
    assert made["additionalProperties"] is False
    meta = made["definitions"][json_schemas.OBJECT_META]
    assert meta["properties"]["labels"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert "description" not in made


def test_a_file_carries_all_that_it_reaches_and_no_more() -> None:
    made = json_schemas.of_kubernetes(OPENAPI)["apps/deployment_v1.json"]
    assert set(made["definitions"]) == set(json_schemas.references(made))
    assert "Unreached" not in made["definitions"]


def test_numbers_are_taken_where_kubernetes_takes_them() -> None:
    definitions = json_schemas.definitions_of(OPENAPI)
    assert definitions["IntOrString"]["type"] == ["integer", "string"]
    assert definitions[json_schemas.QUANTITY_NAME]["type"] == ["number", "string"]


def test_the_core_group_is_named_by_its_version() -> None:
    assert json_schemas.name_of("", "v1", "Service") == "v1/service_v1.json"
    assert json_schemas.name_of("apps", "v1", "Deployment") == "apps/deployment_v1.json"


def test_what_preserves_unknown_fields_stays_open() -> None:
    schema = {"type": "object", "properties": {"a": {}}, "x-kubernetes-preserve-unknown-fields": True}
    assert json_schemas.strict(schema) == {"type": "object", "properties": {"a": {}}}


def test_a_field_may_have_the_name_of_a_keyword() -> None:
    schema = {"type": "object", "properties": {"description": {"type": "string"}, "x-a": {"type": "string"}}}
    assert set(json_schemas.strict(schema)["properties"]) == {"description", "x-a"}


def test_every_object_of_our_own_kinds_is_closed() -> None:
    metadata = json_schemas.object_meta(OPENAPI)

    def check(schema: dict[str, Any], path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
        for name, field in schema.get("properties", {}).items():
            check(field, f"{path}.{name}")
        if "items" in schema:
            check(schema["items"], f"{path}[]")

    names = set()
    for path in CRDS.glob("*.yaml"):
        for name, schema in json_schemas.of_crd(yaml.safe_load(path.read_text()), metadata).items():
            names.add(name)
            check(schema, name)
            assert schema["properties"]["metadata"]["properties"]["labels"]
    kinds = ("asset", "allocation", "proxymapping")
    assert names == {f"hypermesh.online/{kind}_v1alpha1.json" for kind in kinds}
