"""`kubectl hypermesh proxy list|resolve`: which address leads to which piece of hardware."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any

from hypermesh.addressing import AddressError, parse
from hypermesh_clients.kube_resources import ASSETS, PROXY_MAPPINGS
from kubectl_hypermesh.options import CommandError, Options
from kubectl_hypermesh.output import age, condition, is_structured, structured, table


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("proxy", help="global IPv6 proxy addresses")
    parts = parser.add_subparsers(dest="part", metavar="list|resolve", required=True)
    listing = parts.add_parser("list", parents=[common], help="list proxy mappings of all namespaces")
    listing.set_defaults(run=run_list)
    resolve = parts.add_parser("resolve", parents=[common], help="what stands behind an address")
    resolve.add_argument("address", help="proxy address, fd..")
    resolve.set_defaults(run=run_resolve)


def render(items: list[dict[str, Any]], *, wide: bool, now: datetime) -> str:
    """Table of ProxyMapping objects."""
    header = ["ADDRESS", "PORT", "NAMESPACE", "ALLOCATION", "ASSET", "NODE", "PROGRAMMED", "AGE"]
    if wide:
        header += ["EXPIRES", "HEIGHT", "TRANSACTION"]
    rows = []
    for item in sorted(items, key=lambda m: IPv6Address(m["spec"]["address"])):
        spec = item["spec"]
        row = [
            spec["address"],
            str(spec["port"]),
            item["metadata"]["namespace"],
            spec["allocationName"],
            spec["assetName"],
            spec["nodeName"],
            condition(item, "Programmed")["status"],
            age(item["metadata"].get("creationTimestamp"), now),
        ]
        if wide:
            row += [
                spec.get("leaseExpirationTime", "-"),
                str(spec.get("ledgerHeight", "-")),
                spec.get("transactionHash", "-"),
            ]
        rows.append(row)
    return table(header, rows)


def describe(address: IPv6Address, mapping: dict[str, Any] | None, asset: dict[str, Any] | None) -> dict[str, Any]:
    """What is known of an address: its fields, and the mapping or the asset it belongs to."""
    fields = parse(address)
    answer: dict[str, Any] = {
        "address": str(address),
        "federation": fields.federation.hex(),
        "cluster": fields.cluster,
        "nodePrefix": str(fields.node_prefix),
        "type": fields.type.name.lower(),
    }
    if mapping is not None:
        spec = mapping["spec"]
        answer["allocation"] = f"{mapping['metadata']['namespace']}/{spec['allocationName']}"
        answer |= {key: spec[key] for key in ("port", "assetName", "nodeName", "leaseExpirationTime") if key in spec}
        answer["programmed"] = condition(mapping, "Programmed")["status"]
    elif asset is not None:
        answer |= {"assetName": asset["metadata"]["name"], "nodeName": asset["spec"]["nodeName"]}
    return answer


async def run_list(options: Options, arguments: argparse.Namespace) -> int:
    async with options.kube() as kube:
        items = await kube.list(PROXY_MAPPINGS)
    if is_structured(options.output):
        print(structured(items, options.output))
    elif not items:
        print("No proxy mappings. They come with Allocations; try: kubectl apply -f samples/allocation-memory.yaml")
    else:
        print(render(items, wide=options.output == "wide", now=datetime.now(UTC)))
    return 0


async def run_resolve(options: Options, arguments: argparse.Namespace) -> int:
    try:
        address = IPv6Address(arguments.address)
        parse(address)
    except (ValueError, AddressError) as error:
        raise CommandError(
            f"{arguments.address} is no proxy address ({error}); see: kubectl hypermesh proxy list"
        ) from error
    async with options.kube() as kube:
        mappings = [m for m in await kube.list(PROXY_MAPPINGS) if IPv6Address(m["spec"]["address"]) == address]
        assets = [a for a in await kube.list(ASSETS) if a.get("status", {}).get("address") == str(address)]
    if not mappings and not assets:
        raise CommandError(f"{address} is not mapped in this cluster; see: kubectl hypermesh proxy list")
    answer = describe(address, mappings[0] if mappings else None, assets[0] if assets else None)
    if is_structured(options.output):
        print(structured(answer, options.output))
    else:
        width = max(len(key) for key in answer)
        print("\n".join(f"{key + ':':<{width + 2}}{value}" for key, value in answer.items()))
    return 0
