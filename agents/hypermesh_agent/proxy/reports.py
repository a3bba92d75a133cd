"""Reports what became of mappings in the status of their ProxyMappings.

    outcomes (from the ledger's side) + ProxyMappings of this node (from the API server), whichever comes first
        -> patches of /status, several at once, tried again until the API server takes them

A ProxyMapping that the ledger knows nothing of is told so as soon as the mirror has reached the height it names.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Any, Final

from hypermesh.resources import AGENT_MANAGER
from hypermesh_agent.proxy.outcomes import Outcome, status_patch
from hypermesh_clients.kube import Kube, KubeError, NotFound, WatchType
from hypermesh_clients.kube_resources import PROXY_MAPPINGS
from hypermesh_clients.mirror import Mirror

_log = logging.getLogger(__name__)

_WRITERS: Final = 8
_RETRY_S: Final = 1.0


class Reporter:
    """`run` it; `tell` outcomes by allocation id (32 bytes), `forget` them when the ledger does."""

    def __init__(self, kube: Kube, node_name: str, mirror: Mirror) -> None:
        self._kube = kube
        self._mirror = mirror
        self.watch = kube.watch(PROXY_MAPPINGS, field_selector=f"spec.nodeName={node_name}")
        self._outcomes: dict[str, Outcome] = {}
        self._mappings: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}  # uid -> allocation id: what is deleted may say another one by then
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._waiting: set[str] = set()

    def tell(self, allocation_id: bytes, outcome: Outcome) -> None:
        """The newest word on an allocation; its ProxyMapping follows at once, or when it appears."""
        name = allocation_id.hex()
        if self._outcomes.get(name) != outcome:
            self._outcomes[name] = outcome
            self._put(name)

    def forget(self, allocation_id: bytes) -> None:
        """The ledger holds no record of it any more."""
        self._outcomes.pop(allocation_id.hex(), None)

    def reconsider(self) -> None:
        """Call when the ledger's height grew: ProxyMappings without a record may now be told so."""
        for name in self._waiting:
            self._put(name)
        self._waiting.clear()

    async def run(self) -> None:
        """Follows and writes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            for _ in range(_WRITERS):
                group.create_task(self._write())

    async def _follow(self) -> None:
        async for event in self.watch:
            if event.type is WatchType.SYNCED:
                continue
            name = str((event.object.get("spec") or {}).get("allocationID", ""))
            if event.type is WatchType.DELETED:
                self._gone(event.object["metadata"]["uid"])
                continue
            kept = _kept(event.object)
            self._names[kept["metadata"]["uid"]] = name
            if self._mappings.get(name) != kept:  # else it is the echo of our own patch
                self._mappings[name] = kept
                self._put(name)

    def _gone(self, uid: str) -> None:
        name = self._names.pop(uid, "")
        if (kept := self._mappings.get(name)) is not None and kept["metadata"]["uid"] == uid:
            del self._mappings[name]

    def _put(self, name: str) -> None:
        if name not in self._queued:
            self._queued.add(name)
            self._queue.put_nowait(name)

    async def _write(self) -> None:
        while True:
            name = await self._queue.get()
            self._queued.discard(name)
            mapping = self._mappings.get(name)
            if mapping is None:
                continue
            outcome = self._outcomes.get(name) or self._unknown(mapping)
            if outcome is None:
                self._waiting.add(name)
                continue
            try:
                await self._patch(name, mapping, outcome)
            except NotFound:
                continue
            except KubeError as error:
                _log.warning("a ProxyMapping's status could not be written yet: %s", error)
                asyncio.get_running_loop().call_later(_RETRY_S, self._put, name)

    async def _patch(self, name: str, mapping: dict[str, Any], outcome: Outcome) -> None:
        patch = status_patch(mapping, outcome, datetime.now(UTC))
        if patch is None:
            return
        metadata = mapping["metadata"]
        patch["metadata"] = {"uid": metadata["uid"]}  # a namesake made meanwhile is not meant: Conflict
        written = await self._kube.merge_patch(
            PROXY_MAPPINGS,
            metadata["name"],
            patch,
            metadata["namespace"],
            subresource="status",
            field_manager=AGENT_MANAGER,
        )
        current = self._mappings.get(name)
        if current is not None and current["metadata"]["uid"] == metadata["uid"]:
            self._mappings[name] = _kept(written)
        if self._outcomes.get(name) not in (None, outcome):
            self._put(name)

    def _unknown(self, mapping: dict[str, Any]) -> Outcome | None:
        spec = mapping["spec"]
        height = self._mirror.height
        if height < int(spec["ledgerHeight"]) or bytes.fromhex(spec["allocationID"]) in self._mirror.allocations:
            return None  # the ledger, or the pipeline, will say more
        text = (
            f"the ledger at height {height} holds no allocation {spec['allocationID']} for this node; "
            "delete the ProxyMapping and the operator writes what the ledger holds"
        )
        return Outcome(IPv6Address(spec["address"]).packed, int(spec["port"]), "NoSuchAllocation", text)


def _kept(item: dict[str, Any]) -> dict[str, Any]:
    """The few fields that are looked at again: ten thousand mappings must stay small."""
    metadata, spec = item["metadata"], item["spec"]
    return {
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "generation") if key in metadata},
        "spec": {key: spec[key] for key in ("address", "port", "allocationID", "ledgerHeight")},
        "status": item.get("status") or {},
    }
