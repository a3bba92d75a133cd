"""Kubernetes Events on transitions, never more than the API server should bear, never in the way of the work.

A transition of condition Ready or Reserved -> a bounded line -> one writer with a token bucket. Under a storm of
Allocations the oldest waiting lines are dropped and counted: conditions hold the same words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from hypermesh.conditions import Condition, transitions
from hypermesh_clients.kube import Kube, KubeError
from hypermesh_clients.kube_resources import ALLOCATIONS
from hypermesh_operator import metrics
from hypermesh_operator.objects import Allocation
from hypermesh_operator.statuses import Status

_log = logging.getLogger(__name__)

CONTROLLER: Final = "hypermesh.online/operator"
BURST: Final = 50
RATE_PER_S: Final = 10.0
WAITING: Final = 500


@dataclass(frozen=True, slots=True)
class _Line:
    metadata: dict[str, Any]
    reason: str
    note: str
    action: str
    warning: bool


class Announcer:
    """Add lines from anywhere on the loop; `run` writes them."""

    def __init__(self, kube: Kube, instance: str) -> None:
        self._kube = kube
        self._instance = instance
        self._lines: deque[_Line] = deque()
        self._some = asyncio.Event()

    def transition(self, allocation: Allocation, before: Status, after: Status) -> None:
        """Tells of the weightiest transition between two statuses, if any."""
        wanted = [
            Condition(item["type"], item["status"], item["reason"], item["message"])
            for item in after.get("conditions") or ()
        ]
        changed = {item.type: item for item in transitions(before.get("conditions") or (), wanted)}
        reserved, ready = changed.get("Reserved"), changed.get("Ready")
        if ready is not None and ready.status == "True":
            self.say(allocation, "Ready", ready.message, "Program")
        elif reserved is not None and reserved.status == "True":
            node, asset = after.get("nodeName", ""), after.get("assetName", "")
            self.say(allocation, "Reserved", f"Reserved on asset {asset} of node {node}.", "Reserve")
        elif ready is not None and ready.reason != "WaitingForNode":
            self.say(allocation, ready.reason, ready.message, "Reconcile", warning=True)

    def say(self, allocation: Allocation, reason: str, note: str, action: str, *, warning: bool = False) -> None:
        """One Event on the Allocation."""
        if len(self._lines) >= WAITING:
            self._lines.popleft()
            metrics.EVENTS_DROPPED.inc()
        self._lines.append(_Line(allocation.metadata, reason, note, action, warning))
        self._some.set()

    async def run(self) -> None:
        """Writes for ever."""
        tokens, filled = float(BURST), time.monotonic()
        while True:
            if not self._lines:
                self._some.clear()
                await self._some.wait()
            now = time.monotonic()
            tokens, filled = min(BURST, tokens + (now - filled) * RATE_PER_S), now
            if tokens < 1:
                await asyncio.sleep((1 - tokens) / RATE_PER_S)
                continue
            tokens -= 1
            await self._write(self._lines.popleft())

    async def _write(self, line: _Line) -> None:
        try:
            await self._kube.event(
                ALLOCATIONS,
                {"metadata": line.metadata},
                reason=line.reason,
                note=line.note,
                action=line.action,
                controller=CONTROLLER,
                instance=self._instance,
                warning=line.warning,
            )
        except KubeError as error:
            _log.info("an event was not written: %s", error)
