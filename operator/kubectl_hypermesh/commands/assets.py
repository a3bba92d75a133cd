"""`kubectl hypermesh assets`: the hardware of all machines, what is free of it, and whether it is proven."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from hypermesh_clients.kube_resources import ASSETS
from kubectl_hypermesh.options import Options
from kubectl_hypermesh.output import age, condition, is_structured, quantities, structured, table


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("assets", parents=[common], help="list hardware: capacity, free, proofs, sharing")
    parser.add_argument("--type", choices=["cpu", "gpu", "memory", "storage"], help="only this type")
    parser.add_argument("--node", help="only this node")
    parser.set_defaults(run=run)


def render(items: list[dict[str, Any]], *, wide: bool, now: datetime) -> str:
    """Table of Asset objects, sorted by node, type and name."""
    header = ["NAME", "NODE", "TYPE", "CAPACITY", "FREE", "SHARED", "READY", "AGE"]
    if wide:
        header += ["ADDRESS", "TRUST", "EPOCH", "MESSAGE"]
    rows = []
    for item in sorted(items, key=lambda a: (a["spec"]["nodeName"], a["spec"]["type"], a["metadata"]["name"])):
        spec, state = item["spec"], item.get("status", {})
        ready = condition(item, "Ready")
        row = [
            item["metadata"]["name"],
            spec["nodeName"],
            spec["type"],
            quantities(state.get("capacity")),
            quantities(state.get("free")),
            spec.get("sharing", {}).get("privacyLevel", "Private"),
            ready["status"],
            age(item["metadata"].get("creationTimestamp"), now),
        ]
        if wide:
            row += [
                state.get("address", "-"),
                str(state.get("trustScore", "-")),
                str(state.get("proofs", {}).get("epoch", "-")),
                ready.get("message", ""),
            ]
        rows.append(row)
    return table(header, rows)


async def run(options: Options, arguments: argparse.Namespace) -> int:
    labels = [
        f"hypermesh.online/{key}={value}"
        for key, value in (("type", arguments.type), ("node", arguments.node))
        if value is not None
    ]
    async with options.kube() as kube:
        items = await kube.list(ASSETS, label_selector=",".join(labels) or None)
    if is_structured(options.output):
        print(structured(items, options.output))
    elif not items:
        print("No assets found. Agents publish them; see: kubectl hypermesh check")
    else:
        print(render(items, wide=options.output == "wide", now=datetime.now(UTC)))
    return 0
