"""JSON schemas for kubeconform, strict: OpenAPI document or CRD -> one self-contained schema a kind. Pure.

The API server takes fields that it does not know with no more than a warning; here every object with named fields is
closed, so a misspelt field is an error. File names are `<group>/<kind>_<version>.json` in lower case; the core group is
named by its version. Formats: swagger 2.0 as Kubernetes writes it (api/openapi-spec/README.md), structural schemas of
apiextensions.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

LAYOUT = "{{ .Group }}/{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json"
"""The same file names as kubeconform's template; its Group is the part of apiVersion before the slash."""

REFERENCE = "#/definitions/"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
INT_OR_STRING: Schema = {"type": ["integer", "string"]}
QUANTITY: Schema = {"type": ["number", "string"]}
QUANTITY_NAME = "io.k8s.apimachinery.pkg.api.resource.Quantity"
NESTED = ("properties", "items", "additionalProperties", "allOf", "anyOf", "oneOf", "not")
ANNOTATIONS = ("description", "title", "default", "format", "example", "externalDocs", "nullable")


def name_of(group: str, version: str, kind: str) -> str:
    """File name of one kind's schema."""
    return f"{group or version}/{kind}_{version}.json".lower()


def strict(schema: Schema) -> Schema:
    """The schema with all its objects closed, without the keywords that only Kubernetes knows."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    result = {key: value for key, value in plain(schema).items() if key not in NESTED}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return result | INT_OR_STRING
    for key in ("allOf", "anyOf", "oneOf"):  # a branch narrows what stands beside it, so it closes nothing
        if key in schema:
            result[key] = [plain(branch) for branch in schema[key]]
    if "not" in schema:
        result["not"] = plain(schema["not"])
    if "items" in schema:
        result["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"])
    if "properties" in schema:
        result["properties"] = {name: strict(field) for name, field in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") else result


def plain(schema: Schema) -> Schema:
    """The schema without what only tells, and without Kubernetes' own keywords."""
    return {key: value for key, value in schema.items() if key not in ANNOTATIONS and not key.startswith("x-")}


def references(schema: Any) -> Iterator[str]:
    """Names of the definitions that a schema points at."""
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str) and target.startswith(REFERENCE):
            yield target.removeprefix(REFERENCE)
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def with_definitions(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The schema carrying every definition that it reaches, and no other."""
    found: dict[str, Schema] = {}
    waiting = list(references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting += references(found[name])
    return schema | {"definitions": found} if found else schema


def definitions_of(openapi: Schema) -> dict[str, Schema]:
    """All definitions of an OpenAPI document, made strict. A quantity may be written as a number."""
    return {name: strict(schema) for name, schema in openapi["definitions"].items()} | {QUANTITY_NAME: QUANTITY}


def of_kubernetes(openapi: Schema) -> dict[str, Schema]:
    """File name -> schema, for every kind that has a group, version and kind of its own."""
    definitions = definitions_of(openapi)
    return {
        name_of(known["group"], known["version"], known["kind"]): with_definitions(definitions[name], definitions)
        for name, schema in openapi["definitions"].items()
        for known in schema.get("x-kubernetes-group-version-kind", ())
    }


def of_crd(crd: Schema, metadata: Schema) -> dict[str, Schema]:
    """File name -> schema, for every version of a CustomResourceDefinition; `metadata` is ObjectMeta's schema."""
    spec = crd["spec"]
    made: dict[str, Schema] = {}
    for version in spec["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"metadata": {key: metadata[key] for key in metadata if key != "definitions"}}
        if "definitions" in metadata:
            schema["definitions"] = metadata["definitions"]
        made[name_of(spec["group"], version["name"], spec["names"]["kind"])] = schema
    return made


def object_meta(openapi: Schema) -> Schema:
    """The schema of `metadata`, for `of_crd`."""
    definitions = definitions_of(openapi)
    return with_definitions(definitions[OBJECT_META], definitions)
