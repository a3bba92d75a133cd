"""Does the mesh do its work: hardware published and proven, Allocations served?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS, PROXY_MAPPINGS
from kubectl_hypermesh.checks.model import Check, CheckFailed, Context
from kubectl_hypermesh.output import condition, parse_time

CATEGORY = "hypermesh-mesh"
STUCK = timedelta(minutes=2)
IDLE = "NothingToGive"
"""Reason of hardware that is listed but of which nothing is shared: a disk without a pool."""


async def published(context: Context) -> None:
    context.found["assets"] = assets = await context.kube.list(ASSETS)
    if not assets:
        raise CheckFailed("no Asset is published: kubectl logs daemonset/hypermesh-agent")


async def proven(context: Context) -> None:
    unready = []
    for asset in context.found.get("assets", []):
        ready = condition(asset, "Ready")
        if ready["status"] != "True" and ready["reason"] != IDLE:
            unready.append(f"{asset['metadata']['name']} ({ready['reason'] or 'Pending'})")
    if unready:
        raise CheckFailed(f"not Ready: {', '.join(unready[:5])}{' …' if len(unready) > 5 else ''}")


async def served(context: Context) -> None:
    now = datetime.now(UTC)
    stuck = [
        f"{item['metadata']['namespace']}/{item['metadata']['name']} ({condition(item, 'Ready')['reason'] or 'new'})"
        for item in await context.kube.list(ALLOCATIONS)
        if condition(item, "Ready")["status"] != "True"
        and now - parse_time(item["metadata"]["creationTimestamp"]) > STUCK
    ]
    if stuck:
        raise CheckFailed(f"not Ready for over two minutes: {', '.join(stuck[:5])}{' …' if len(stuck) > 5 else ''}")


async def programmed(context: Context) -> None:
    mappings = await context.kube.list(PROXY_MAPPINGS)
    missing = [m["spec"]["address"] for m in mappings if condition(m, "Programmed")["status"] != "True"]
    if missing:
        raise CheckFailed(f"{len(missing)} of {len(mappings)} addresses are not programmed, first {missing[0]}")


CHECKS = (
    Check(CATEGORY, "assets are published", "assets-published", published),
    Check(CATEGORY, "assets are proven and ready", "assets-ready", proven),
    Check(CATEGORY, "allocations are served", "allocations-served", served, warning=True),
    Check(CATEGORY, "proxy addresses are programmed", "addresses-programmed", programmed, warning=True),
)
