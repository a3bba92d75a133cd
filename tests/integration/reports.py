"""What a node's agent reports of its mappings, where a test has no node: written as the agent would write it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

from hypermesh.conditions import Condition, merge, timestamp
from hypermesh.resources import AGENT_MANAGER
from hypermesh_clients.kube import Kube, NotFound, Object, WatchType
from hypermesh_clients.kube_resources import PROXY_MAPPINGS


class Reports:
    """Writes what a node's agent would: every ProxyMapping of the node is Programmed. `run` beside a test."""

    def __init__(self, kube: Kube, node: str) -> None:
        self._kube = kube
        self._selector = f"hypermesh.online/node={node}"
        self.written = 0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for event in self._kube.watch(PROXY_MAPPINGS, label_selector=self._selector):
                if event.type is WatchType.ADDED and not (event.object.get("status") or {}).get("conditions"):
                    group.create_task(self._write(event.object))

    async def _write(self, mapping: Object) -> None:
        with contextlib.suppress(NotFound):
            await report_programmed(self._kube, mapping)
            self.written += 1


async def report_programmed(kube: Kube, mapping: Object) -> None:
    """The report on one mapping."""
    metadata = mapping["metadata"]
    said = [Condition("Programmed", "True", "ReadBack", "The kernel holds the translation.")]
    now = datetime.now(UTC)
    status = {
        "conditions": merge((), said, metadata.get("generation", 1), now),
        "observed": {"programmedTime": timestamp(now), "targetAddress": "fd00::1", "targetPort": 7443},
    }
    await kube.merge_patch(
        PROXY_MAPPINGS,
        metadata["name"],
        {"status": status},
        metadata["namespace"],
        subresource="status",
        field_manager=AGENT_MANAGER,
    )
