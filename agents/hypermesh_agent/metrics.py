"""What Prometheus reads at /metrics of an agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from hypermesh.resources import RESOURCE_OF_TYPE

from .hardware import Inventory, Kind


class Metrics:
    """All of the agent's own figures, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._assets: Final = Gauge("hypermesh_agent_assets", "Assets found on this node.", ["type"], registry=registry)
        self._capacity: Final = Gauge(
            "hypermesh_agent_capacity", "What this node gives: cores, or bytes.", ["type"], registry=registry
        )
        self._size: Final = Gauge(
            "hypermesh_agent_hardware", "What this node has: cores, or bytes.", ["type"], registry=registry
        )
        self._failing: Final = Gauge(
            "hypermesh_agent_probe_failing", "1 while the probe of this type fails.", ["type"], registry=registry
        )
        self._surveys: Final = Counter(
            "hypermesh_agent_surveys", "Looks at the hardware, by what made us look.", ["cause"], registry=registry
        )
        self._writes: Final = Counter(
            "hypermesh_agent_asset_writes", "Writes of Asset resources to the API server.", registry=registry
        )
        self._followed: dict[str, Gauge] = {}
        self._registry = registry

    def surveyed(self, inventory: Inventory, cause: str) -> None:
        """cause: start, hotplug or time."""
        self._surveys.labels(cause).inc()
        for kind in Kind:
            unit = 1000 if RESOURCE_OF_TYPE[kind] == "cores" else 1
            found = inventory.of(kind)
            self._assets.labels(kind).set(len(found))
            self._capacity.labels(kind).set(sum(item.capacity for item in found) / unit)
            self._size.labels(kind).set(sum(item.size for item in found) / unit)
            self._failing.labels(kind).set(kind in inventory.failures)

    def wrote(self, _name: str) -> None:
        self._writes.inc()

    def follow(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is read; the newest `value` counts: a renewed enrolment brings another."""
        if name not in self._followed:
            self._followed[name] = Gauge(f"hypermesh_agent_{name}", text, registry=self._registry)
        self._followed[name].set_function(value)
