"""Which Kubernetes resources we speak to, and where they live below the API server.

A `Resource` is what discovery would tell us, written down: asking the server for it at every start costs
round trips and memory, and the set of kinds we touch is small and fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON. Typed views of our own kinds live with their owners."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API server names it; `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1` or `group/version`, as it stands in manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, or of one object (or its subresource) when `name` is given.

        A namespaced resource without `namespace` means all namespaces and then takes no name.
        Raises ValueError when name or namespace don't fit the scope: a programming error, not the user's.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self.plural} are cluster-scoped, but namespace {namespace!r} was given")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.plural} {name!r} needs a namespace")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(quote(part, safe=":") for part in parts)

    def describe(self, namespace: str | None = None, name: str | None = None) -> str:
        """How messages name the object: `Allocation team-a/scratch`, `Asset node1-cpu-0011aabb`, `nodes`."""
        if not name:
            return f"{self.plural} in namespace {namespace}" if namespace else self.plural
        return f"{self.kind} {namespace}/{name}" if namespace else f"{self.kind} {name}"


ASSETS = Resource("hypermesh.online", "v1alpha1", "assets", "Asset", namespaced=False)
ALLOCATIONS = Resource("hypermesh.online", "v1alpha1", "allocations", "Allocation")
PROXY_MAPPINGS = Resource("hypermesh.online", "v1alpha1", "proxymappings", "ProxyMapping")

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICES = Resource("", "v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")

DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")

CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
