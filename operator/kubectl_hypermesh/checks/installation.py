"""Is everything of the chart there, and is it running?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypermesh.resources import FINALIZER
from hypermesh_clients.kube import Forbidden, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS, CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, Resource
from kubectl_hypermesh.checks.model import Check, CheckFailed, Context
from kubectl_hypermesh.workloads import WORKLOADS, readiness

CATEGORY = "hypermesh-installation"
_NAMES = ("allocations.hypermesh.online", "assets.hypermesh.online", "proxymappings.hypermesh.online")
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"


async def definitions(context: Context) -> None:
    missing = []
    for name in _NAMES:
        try:
            found = await context.kube.get(CUSTOM_RESOURCE_DEFINITIONS, name)
        except NotFound:
            missing.append(name)
            continue
        states = {item["type"]: item["status"] for item in found.get("status", {}).get("conditions", [])}
        if states.get("Established") != "True":
            missing.append(f"{name} (not established)")
    if missing:
        raise CheckFailed(f"missing {', '.join(missing)}: helm upgrade --install hypermesh with crds.enabled=true")


async def allocations_taken(context: Context) -> None:
    """Tries one in a dry run: a mutating policy of a kind whose schema the API server has not read yet refuses all of
    that kind, and the server looks for new schemas every five seconds only."""
    sample = {
        "metadata": {"generateName": "check-", "namespace": context.namespace},
        "spec": {"type": "memory", "resources": {"memory": "1Gi"}},
    }
    try:
        taken = await context.kube.create(ALLOCATIONS, sample, dry_run=True)
    except Forbidden:
        return  # who asks may not allocate there, whatever the state of the server
    if FINALIZER in taken["metadata"].get("finalizers", ()):
        return
    served = await context.kube.request("GET", _ADMISSION, about="admission policies", idempotent=True)
    if "MutatingAdmissionPolicy" in {item["kind"] for item in served["resources"]}:
        raise CheckFailed(
            f"admission policy hypermesh-allocations does not act (yet): Allocations are born without {FINALIZER}; "
            "if this lasts, helm upgrade --install hypermesh"
        )


async def federation(context: Context) -> None:
    try:
        found = await context.kube.get(CONFIG_MAPS, "hypermesh-trust", context.namespace)
    except NotFound as error:
        raise CheckFailed(
            f"ConfigMap hypermesh-trust is not in namespace {context.namespace}: is the chart installed there?"
        ) from error
    if not (found.get("data") or {}).get("federation"):
        raise CheckFailed("TrustChain has not published its root yet: kubectl logs deploy/hypermesh-trustchain")


def workload(resource: Resource, name: str) -> Callable[[Context], Awaitable[None]]:
    """All wanted pods of one process are ready."""

    async def check(context: Context) -> None:
        have, want = await readiness(context.kube, resource, name, context.namespace)
        if want is None:
            raise CheckFailed(f"{resource.kind} {name} is not in namespace {context.namespace}: install the chart")
        if want == 0:
            raise CheckFailed(f"{resource.kind} {name} wants no pods: does a node match its selector?")
        if have < want:
            raise CheckFailed(
                f"{have} of {want} pods ready: kubectl -n {context.namespace} describe {resource.plural} {name}"
            )

    return check


CHECKS = (
    Check(CATEGORY, "resource definitions are installed", "definitions", definitions, fatal=True),
    Check(CATEGORY, "the API server takes Allocations", "allocations-taken", allocations_taken),
    Check(CATEGORY, "the federation is founded", "federation", federation),
    *(Check(CATEGORY, f"{name} is running", name, workload(resource, name)) for resource, name in WORKLOADS),
)
