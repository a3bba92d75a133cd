"""The processes of the chart as the API server sees them."""

from __future__ import annotations

from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_resources import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, Resource

WORKLOADS = (
    (DEPLOYMENTS, "hypermesh-trustchain"),
    (STATEFUL_SETS, "hypermesh-ledger"),
    (DEPLOYMENTS, "hypermesh-operator"),
    (DAEMON_SETS, "hypermesh-agent"),
)


async def readiness(kube: Kube, resource: Resource, name: str, namespace: str) -> tuple[int, int | None]:
    """(ready, wanted) pods; wanted is None when the workload is not installed."""
    try:
        found = await kube.get(resource, name, namespace)
    except NotFound:
        return 0, None
    state = found.get("status", {})
    if resource is DAEMON_SETS:
        return int(state.get("numberReady", 0)), int(state.get("desiredNumberScheduled", 0))
    return int(state.get("readyReplicas", 0)), int(found["spec"].get("replicas", 1))
