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
    """(pods of the newest version that are ready, wanted); wanted is None when the workload is not installed.

    During a rollout the pods of the old version do not count.
    """
    try:
        found = await kube.get(resource, name, namespace)
    except NotFound:
        return 0, None
    state = found.get("status", {})
    current = int(state.get("observedGeneration", 0)) >= int(found["metadata"].get("generation", 0))
    if resource is DAEMON_SETS:
        want, updated, ready = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
        wanted = int(state.get(want, 0))
    else:
        updated, ready = ("updatedReplicas", "readyReplicas")
        wanted = int(found["spec"].get("replicas", 1))
    return (min(int(state.get(updated, 0)), int(state.get(ready, 0))) if current else 0), wanted
