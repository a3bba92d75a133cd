"""`kubectl hypermesh status`: the mesh at a glance — federation, processes, hardware by type, Allocations."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from hypermesh.quantities import parse, render_short
from hypermesh.resources import RESOURCE_OF_TYPE
from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS, CONFIG_MAPS, PROXY_MAPPINGS
from kubectl_hypermesh.options import Options
from kubectl_hypermesh.output import condition, is_structured, structured, table
from kubectl_hypermesh.workloads import WORKLOADS, readiness


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("status", parents=[common], help="the mesh at a glance")
    parser.set_defaults(run=run)


def summarize(
    trust: dict[str, str],
    workloads: dict[str, str],
    assets: list[dict[str, Any]],
    allocations: list[dict[str, Any]],
    mappings: list[dict[str, Any]],
) -> dict[str, Any]:
    """Counts and sums; amounts are summed in base units and shown as quantities."""
    hardware = {}
    for kind, resource in RESOURCE_OF_TYPE.items():
        of_kind = [asset for asset in assets if asset["spec"]["type"] == kind]
        if not of_kind:
            continue
        hardware[kind] = {
            "assets": len(of_kind),
            "ready": sum(condition(asset, "Ready")["status"] == "True" for asset in of_kind),
            **{
                part: render_short(
                    resource,
                    sum(parse(resource, asset.get("status", {}).get(part, {}).get(resource, 0)) for asset in of_kind),
                )
                for part in ("capacity", "allocated", "free")
            },
        }
    ready = [allocation for allocation in allocations if condition(allocation, "Ready")["status"] == "True"]
    waiting = Counter(condition(item, "Ready")["reason"] or "Pending" for item in allocations if item not in ready)
    return {
        "federation": trust.get("federation", "not founded yet"),
        "prefix": trust.get("prefix", "-"),
        "processes": workloads,
        "hardware": hardware,
        "allocations": {"total": len(allocations), "ready": len(ready), "notReady": dict(waiting)},
        "proxyMappings": {
            "total": len(mappings),
            "programmed": sum(condition(mapping, "Programmed")["status"] == "True" for mapping in mappings),
        },
    }


def render(summary: dict[str, Any]) -> str:
    """The summary as three short tables."""
    lines = [f"Federation   {summary['federation']}   prefix {summary['prefix']}", ""]
    lines += [table(["PROCESS", "READY"], [[name, text] for name, text in summary["processes"].items()]), ""]
    rows = [
        [kind, str(part["assets"]), str(part["ready"]), part["capacity"], part["allocated"], part["free"]]
        for kind, part in summary["hardware"].items()
    ]
    lines += [table(["TYPE", "ASSETS", "READY", "CAPACITY", "ALLOCATED", "FREE"], rows), ""]
    allocations, mappings = summary["allocations"], summary["proxyMappings"]
    lines.append(f"Allocations    {allocations['ready']} of {allocations['total']} ready")
    lines += [f"               {count} {reason}" for reason, count in sorted(allocations["notReady"].items())]
    lines.append(f"ProxyMappings  {mappings['programmed']} of {mappings['total']} programmed")
    return "\n".join(lines)


async def trust_data(kube: Kube, namespace: str) -> dict[str, str]:
    """Public part of the trust root, or nothing while TrustChain has not founded the federation."""
    try:
        found = await kube.get(CONFIG_MAPS, "hypermesh-trust", namespace)
    except NotFound:
        return {}
    return dict(found.get("data") or {})


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with options.kube() as kube:
        trust = await trust_data(kube, options.install_namespace)
        workloads = {}
        for resource, name in WORKLOADS:
            have, want = await readiness(kube, resource, name, options.install_namespace)
            workloads[name] = f"{have}/{want}" if want is not None else "not installed"
        summary = summarize(
            trust,
            workloads,
            await kube.list(ASSETS),
            await kube.list(ALLOCATIONS),
            await kube.list(PROXY_MAPPINGS),
        )
    print(structured(summary, options.output) if is_structured(options.output) else render(summary))
    return 0
