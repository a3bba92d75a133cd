"""docs/reference/ out of what the programs themselves go by; run by `make generate`.

crds/ -> <plural>.md; charts/hypermesh/values.yaml and values.schema.json -> values.md; the plugin's parser -> cli.md;
the metrics that the sources declare -> metrics.md. Only `main` writes; tests/docs compares the pages with the files.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "reference"
PROCESSES = {
    "hypermesh-agent": "agents/hypermesh_agent",
    "hypermesh-operator": "operator/hypermesh_operator",
    "hypermesh-ledger": "operator/hypermesh_ledger",
    "hypermesh-trustchain": "operator/hypermesh_trustchain",
}
KUBERNETES_OWN = ("apiVersion", "kind", "metadata")
BOUNDS = {"minimum": "at least", "maximum": "at most", "default": "default"}
METRIC_TYPES = ("Counter", "Gauge", "Histogram")


def pages() -> dict[str, str]:
    """File name -> text, of every page."""
    kinds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    chart = ROOT / "charts" / "hypermesh"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    schema = json.loads((chart / "values.schema.json").read_text())
    return {
        **{f"{crd['spec']['names']['plural']}.md": kind_page(crd) for crd in kinds},
        "values.md": values_page(values, schema),
        "cli.md": cli_page(plugin_parser()),
        "metrics.md": metrics_page({name: list(metrics(ROOT / folder)) for name, folder in PROCESSES.items()}),
    }


def page(title: str, source: str, *parts: str) -> str:
    """A page with its heading and where it comes from."""
    note = f"<!-- Made from {source} by `make generate`; edit there. -->"
    return "\n\n".join((note, f"# {title}", *(part.strip("\n") for part in parts if part))) + "\n"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    if not lines:
        return ""
    names = list(heads)
    return "\n".join((f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *lines))


def cell(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def prose(schema: dict[str, Any]) -> str:
    """A description as a paragraph."""
    return str(schema.get("description", "")).strip().replace("<", "&lt;")


# -- kinds ------------------------------------------------------------------------------------------------


def kind_page(crd: dict[str, Any]) -> str:
    """Fields of spec and status, what is refused, and the columns of `kubectl get`."""
    spec, names = crd["spec"], crd["spec"]["names"]
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    scope = "namespaced" if spec["scope"] == "Namespaced" else "cluster-scoped"
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    parts = [
        prose(schema),
        f"`{spec['group']}/{version['name']}`, {scope}; `kubectl get {names['plural']}`, short {short}.",
    ]
    for section in ("spec", "status"):
        rows = [(f"`{path}`", kind, told) for path, kind, told in fields(schema["properties"][section], section)]
        parts += [f"## {section}", prose(schema["properties"][section]), table(FIELD_HEADS, rows)]
    refused = [(f"`{path}`", message) for path, message in rules(schema, "")]
    columns = version["additionalPrinterColumns"]
    shown = [(item["name"], "wide" if item.get("priority") else "", item["description"]) for item in columns]
    return page(
        names["kind"],
        f"crds/{names['plural']}.yaml",
        *parts,
        "## What is refused, and what to write instead" if refused else "",
        table(("field", "message"), refused),
        "## Columns of kubectl get",
        table(("column", "with", "shows"), shown),
    )


FIELD_HEADS = ("field", "type", "meaning")


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Path, type and description of every field below, lists as `[]` and maps as `{}`."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        own = f"{path}.{name}"
        words = [type_of(field), *(["required"] if name in required else []), *bounds(field)]
        yield own, ", ".join(words), field.get("description", "")
        yield from fields(field, own)
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(field.get(key), dict):
                yield from fields(field[key], f"{own}{mark}")


def type_of(field: dict[str, Any]) -> str:
    """The type in words."""
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = str(field.get("type", "any"))
    return f"list of {type_of(field['items'])}" if kind == "array" else str(field.get("format") or kind)


def bounds(field: dict[str, Any]) -> Iterator[str]:
    """Choices, limits and default."""
    if "enum" in field:
        yield " / ".join(f"`{value}`" for value in field["enum"])
    yield from (f"{word} `{json.dumps(field[key])}`" for key, word in BOUNDS.items() if key in field)


def rules(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Field and message of every validation rule."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield (path + rule.get("fieldPath", "")).lstrip(".") or "metadata.name", said(rule)
    for name, field in schema.get("properties", {}).items():
        yield from rules(field, f"{path}.{name}")
    if "items" in schema:
        yield from rules(schema["items"], f"{path}[]")


def said(rule: dict[str, Any]) -> str:
    """The message of a rule; of a computed one, the expression that makes it."""
    return str(rule.get("message") or f"`{rule['messageExpression']}`")


# -- values -----------------------------------------------------------------------------------------------


def values_page(values: dict[str, Any], schema: dict[str, Any]) -> str:
    """Every value of the chart with its default."""
    rows = ((f"`{path}`", f"`{json.dumps(default)}`", told) for path, default, told in leaves(values, schema, ""))
    told = "Given to `helm` with `--set NAME=VALUE` or in a file with `--values`. A name that is not here is refused."
    source = "charts/hypermesh/values.yaml and values.schema.json"
    return page("Chart values", source, told, table(("value", "default", "meaning"), rows))


def leaves(values: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[tuple[str, Any, str]]:
    """Path, default and description of every value that is no group of others."""
    for key, default in values.items():
        node = schema["properties"][key]
        if isinstance(default, dict) and "properties" in node:
            yield from leaves(default, node, f"{path}{key}.")
        else:
            choices = " / ".join(f"`{value}`" for value in node.get("enum", ()))
            yield f"{path}{key}", default, " ".join(filter(None, (node["description"], choices)))


# -- the plugin -------------------------------------------------------------------------------------------


def plugin_parser() -> argparse.ArgumentParser:
    """The plugin's own parser, with the defaults of an empty environment."""
    for name in ("HYPERMESH_NAMESPACE", "HYPERMESH_LEDGER"):
        os.environ.pop(name, None)
    from kubectl_hypermesh.main import build_parser

    return build_parser()


def cli_page(parser: argparse.ArgumentParser) -> str:
    """Every command with its arguments; the flags that all share, once."""
    commands = list(leaf_commands(parser, ""))
    flags = [shared_flags(command) for _, command, _ in commands]
    common = [row for row in flags[0] if all(row in other for other in flags)]
    parts = []
    for name, command, told in commands:
        own = [row for row in rows_of(command) if row not in common]
        parts += [f"## {name}", f"{told[:1].upper()}{told[1:]}.", f"    {usage(parser.prog, name, command)}"]
        parts.append(table(("argument", "meaning"), own))
    head = f"{parser.description} The program is `kubectl-hypermesh`; kubectl finds it on `PATH`."
    every = ("## Flags of every command", table(("flag", "meaning"), common))
    return page(parser.prog, "the parser in operator/kubectl_hypermesh", head, *parts, *every)


def leaf_commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Name, parser and help of every command that does something."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for word, child in action.choices.items():
                below = list(leaf_commands(child, f"{name} {word}".strip()))
                yield from below or [(f"{name} {word}".strip(), child, told.get(word, ""))]


def rows_of(command: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Argument and meaning, in the order of declaration."""
    return [
        (f"`{spelling(action)}`", (action.help or "") % {**vars(action), "prog": command.prog})
        for action in command._actions
        if not isinstance(action, argparse._HelpAction)
    ]


def shared_flags(command: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """The rows that are flags and may be common to all commands."""
    return [row for row in rows_of(command) if row[0].startswith("`-")]


def spelling(action: argparse.Action) -> str:
    """As it is typed: `-o, --output {table,json}`."""
    if not action.option_strings:
        return (action.metavar or action.dest).upper() if isinstance(action.metavar, str | None) else action.dest
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    value = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.metavar or action.dest.upper()
    return f"{names} {value}"


def usage(program: str, name: str, command: argparse.ArgumentParser) -> str:
    """The command with its positional arguments."""
    places = [spelling(action) for action in command._actions if not action.option_strings]
    return " ".join([program, name, *places, "[FLAGS]"])


# -- metrics ----------------------------------------------------------------------------------------------


class Metric(NamedTuple):
    """As Prometheus sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    told: str


def metrics_page(found: dict[str, list[Metric]]) -> str:
    """Every process and its metrics."""
    parts = []
    for process, items in found.items():
        rows = [(f"`{m.name}`", m.kind.lower(), ", ".join(m.labels), m.told) for m in sorted(items)]
        parts += [f"## {process}", table(("metric", "type", "labels", "meaning"), rows)]
    told = (
        "Every process answers `/metrics` on port 7470, beside `/healthz` and `/readyz`. "
        "What Prometheus' Python client says of any process (`process_*`, `python_*`) is there too."
    )
    return page("Metrics", "the metrics declared in agents/ and operator/", told, *parts)


def metrics(folder: Path) -> Iterator[Metric]:
    """Declared in one process' sources: Counter(...), Gauge(...), Histogram(...), and the agent's `follow(...)`."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        types = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "prometheus_client"
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (metric := declared(node, types)):
                yield metric


def declared(call: ast.Call, types: dict[str, str]) -> Metric | None:
    """The metric that a call declares, if it does; one whose name is computed is not declared there."""
    texts = [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]
    if len(texts) < 2:
        return None
    name, told = map(str, texts)
    if isinstance(call.func, ast.Attribute) and call.func.attr == "follow":
        return Metric(f"hypermesh_agent_{name}", "Gauge", (), told)
    kind = types.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if kind not in METRIC_TYPES:
        return None
    lists = [argument for argument in call.args[2:3] if isinstance(argument, ast.List)]
    labels = tuple(str(ast.literal_eval(item)) for each in lists for item in each.elts)
    name = f"{name.removesuffix('_total')}_total" if kind == "Counter" else name
    return Metric(name, kind, labels, told)


def main() -> None:
    """Writes every page, and takes away what is no page any more."""
    TARGET.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in TARGET.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
