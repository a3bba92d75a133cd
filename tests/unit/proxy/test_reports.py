"""Which ProxyMapping a deletion means, told by its uid alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from proxy_world import FedMirror, World

from hypermesh_agent.proxy.reports import Reporter
from hypermesh_clients.kube import Kube, WatchType
from hypermesh_clients.kube_watch import WatchEvent


def event(kind: WatchType, uid: str, allocation: str) -> WatchEvent:
    spec = {"address": "fd00::1", "port": 7443, "allocationID": allocation, "ledgerHeight": 1}
    return WatchEvent(kind, {"metadata": {"name": uid, "namespace": "team-a", "uid": uid}, "spec": spec})


async def followed(world: World, *events: WatchEvent) -> Reporter:
    async with Kube("http://[::1]:1") as kube:
        reporter = Reporter(kube, "node-1", FedMirror(world))

        async def stream() -> AsyncIterator[WatchEvent]:
            for item in events:
                yield item

        reporter.watch = cast(Any, stream())
        await asyncio.wait_for(reporter._follow(), 10)
        return reporter


async def test_a_deleted_mapping_is_forgotten_and_its_successor_is_not(world: World) -> None:
    first, second = event(WatchType.ADDED, "uid-1", "aa"), event(WatchType.ADDED, "uid-2", "aa")
    gone = event(WatchType.DELETED, "uid-1", "another id, as its last state may say")
    assert (await followed(world, first, gone))._mappings == {}
    kept = (await followed(world, first, second, gone))._mappings
    assert kept["aa"]["metadata"]["uid"] == "uid-2"
    again = (await followed(world, first, second, gone, event(WatchType.DELETED, "uid-2", "aa")))._mappings
    assert again == {}
