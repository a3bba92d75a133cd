"""What an installation needs of the cluster and of the person who installs."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from hypermesh_clients.kube_resources import NAMESPACES, NODES, SELF_SUBJECT_ACCESS_REVIEWS
from kubectl_hypermesh.checks.model import Check, CheckFailed, Context

OLDEST = (1, 34)
_NEEDED = (
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
)


async def reachable(context: Context) -> None:
    context.found["version"] = await context.kube.request("GET", "/version", about="the API server", idempotent=True)


async def new_enough(context: Context) -> None:
    version = context.found["version"]
    have = (int(version["major"]), int(re.sub(r"\D", "", version["minor"])))
    if have < OLDEST:
        raise CheckFailed(
            f"the server is {have[0]}.{have[1]}, {OLDEST[0]}.{OLDEST[1]} is the oldest supported: upgrade it"
        )


async def nodes_have_ipv6(context: Context) -> None:
    without = []
    for node in await context.kube.list(NODES):
        addresses = [a["address"] for a in node["status"].get("addresses", []) if a["type"] == "InternalIP"]
        if not any(isinstance(ip_address(address), IPv6Address) for address in addresses):
            without.append(node["metadata"]["name"])
    if without:
        raise CheckFailed(f"no IPv6 InternalIP on node(s) {', '.join(without)}: enable IPv6 or dual stack there")


async def may_install(context: Context) -> None:
    missing = []
    for group, plural in _NEEDED:
        attributes = {"group": group, "resource": plural, "verb": "create"}
        answer = await context.kube.create(SELF_SUBJECT_ACCESS_REVIEWS, {"spec": {"resourceAttributes": attributes}})
        if not answer.get("status", {}).get("allowed"):
            missing.append(f"create {plural}.{group}")
    if missing:
        raise CheckFailed(f"you may not {', '.join(missing)}: install as a cluster administrator")


async def privileged_allowed(context: Context) -> None:
    namespaces = {item["metadata"]["name"]: item for item in await context.kube.list(NAMESPACES)}
    found = namespaces.get(context.namespace)
    labels = found["metadata"].get("labels", {}) if found else {}
    level = labels.get("pod-security.kubernetes.io/enforce", "privileged")
    if level != "privileged":
        raise CheckFailed(
            f"namespace {context.namespace} enforces pod security {level}, the agent needs privileged: "
            f"kubectl label namespace {context.namespace} pod-security.kubernetes.io/enforce=privileged --overwrite"
        )


CONNECTION = (
    Check("kubernetes-api", "can reach the API server", "api-reachable", reachable, fatal=True),
    Check("kubernetes-api", "is new enough", "api-version", new_enough, fatal=True),
)
CHECKS = (
    *CONNECTION,
    Check("pre-install", "every node has an IPv6 address", "node-ipv6", nodes_have_ipv6),
    Check("pre-install", "you may create what the chart installs", "may-install", may_install),
    Check("pre-install", "the agent may run privileged", "privileged", privileged_allowed),
)
