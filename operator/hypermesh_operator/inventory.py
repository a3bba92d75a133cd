"""What this process has seen of Kubernetes: Allocations and ProxyMappings, as small views by uid and by name.

    kopf's Allocation events, our own ProxyMapping watch, answers to our writes -> Inventory -> worlds for decisions

Our writes' answers come before the watch tells of them; an older version than the one held is ignored, so that a
decision never rests on something we have already changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping as Map
from itertools import islice
from typing import Any

from hypermesh.v1 import ledger_pb2
from hypermesh_operator import metrics, objects
from hypermesh_operator.objects import Allocation, Grant, Mapping


class Inventory:
    """Bound to one cluster, whose uid goes into allocation ids."""

    def __init__(self, cluster_uid: str) -> None:
        self.cluster_uid = cluster_uid
        self._allocations: dict[str, Allocation] = {}
        self._uids: dict[bytes, str] = {}
        self._mappings: dict[tuple[str, str], Mapping] = {}
        self._reported: dict[str, float] = {}
        self._published: dict[str, float] = {}
        self._doubted: set[str] = set()
        self._secrets: dict[str, str | None] = {}
        self._grants: dict[bytes, tuple[ledger_pb2.AllocationRecord, Grant]] = {}

    def allocation(self, uid: str) -> Allocation | None:
        """The newest known version."""
        return self._allocations.get(uid)

    def uid_of(self, allocation_id: bytes) -> str | None:
        """The resource of a ledger record, when it is known here."""
        return self._uids.get(allocation_id)

    def see(self, body: Map[str, Any]) -> Allocation:
        """Takes a version over, unless a newer one is held. Raises QuantityInvalid for an unreadable spec."""
        uid = body["metadata"]["uid"]
        held = self._allocations.get(uid)
        if held is not None and int(body["metadata"]["resourceVersion"]) <= held.version:
            return held
        seen = objects.allocation(body, self.cluster_uid)
        self._allocations[uid] = seen
        self._uids[seen.allocation_id] = uid
        self._published.setdefault(uid, float("-inf"))
        metrics.ALLOCATIONS.set(len(self._allocations))
        return seen

    def grant(self, allocation: Allocation, record: ledger_pb2.AllocationRecord | None) -> Grant | None:
        """The ledger's record, parsed once for as long as it is the same one."""
        if record is None:
            self._grants.pop(allocation.allocation_id, None)
            return None
        held = self._grants.get(allocation.allocation_id)
        if held is not None and held[0] is record:
            return held[1]
        parsed = objects.grant(record)
        self._grants[allocation.allocation_id] = (record, parsed)
        return parsed

    def lose(self, uid: str) -> None:
        """The resource is gone."""
        held = self._allocations.pop(uid, None)
        if held is not None:
            self._uids.pop(held.allocation_id, None)
            self._grants.pop(held.allocation_id, None)
        self._reported.pop(uid, None)
        self._published.pop(uid, None)
        self._doubted.discard(uid)
        self._secrets.pop(uid, None)
        metrics.ALLOCATIONS.set(len(self._allocations))

    def mapping(self, allocation: Allocation) -> Mapping | None:
        """The ProxyMapping of that name, whosever it is."""
        return self._mappings.get((allocation.namespace, allocation.name))

    def see_mapping(self, body: Map[str, Any]) -> Mapping:
        """Takes a ProxyMapping over."""
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        seen, held = objects.mapping(body), self._mappings.get(key)
        if held is not None and held.version >= seen.version:
            return held
        self._mappings[key] = seen
        return seen

    def lose_mapping(self, body: Map[str, Any]) -> Mapping | None:
        """It is gone, unless one of the same name has taken its place."""
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        held = self._mappings.get(key)
        if held is None or held.uid != metadata["uid"]:
            return None
        return self._mappings.pop(key)

    def forget_mapping(self, allocation: Allocation) -> None:
        """We deleted it."""
        self._mappings.pop((allocation.namespace, allocation.name), None)

    def reported(self, uid: str) -> None:
        """We wrote its status just now."""
        self._reported[uid] = time.monotonic()

    def reported_s(self, uid: str) -> float:
        """Seconds since we wrote its status; infinite when this process never did."""
        return time.monotonic() - self._reported.get(uid, float("-inf"))

    def published(self, uid: str, secret: str | None) -> None:
        """Its Secret (of that uid, None for one we can't make) and ProxyMapping are as they should be just now."""
        if uid not in self._allocations:
            return  # deleted while we wrote
        self._doubted.discard(uid)
        self._last(uid, time.monotonic())
        self._secrets[uid] = secret

    def published_s(self, uid: str) -> float:
        """Seconds since we published it; infinite when this process never did."""
        return time.monotonic() - self._published.get(uid, float("-inf"))

    def doubt(self, count: int) -> list[str]:
        """So many active ones that were published, or doubted, longest ago: look after their Secrets again."""
        doubted = list(islice(filter(self._active, self._published), count))
        for uid in doubted:
            self._last(uid, self._published[uid])
        self._doubted.update(doubted)
        return doubted

    def doubted(self, uid: str) -> bool:
        """Whether it was doubted and not published since."""
        return uid in self._doubted

    def _active(self, uid: str) -> bool:
        """Whether the ledger granted it, as far as its last turn has seen."""
        held = self._grants.get(self._allocations[uid].allocation_id)
        return held is not None and held[1].active

    def _last(self, uid: str, published: float) -> None:
        """The dictionary's order is the order of doubting."""
        self._published.pop(uid, None)
        self._published[uid] = published

    def secret(self, uid: str) -> str | None:
        """Uid of the Secret as last applied, if this process did."""
        return self._secrets.get(uid)

    def uids(self) -> list[str]:
        """All that are known now."""
        return list(self._allocations)
