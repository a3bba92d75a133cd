"""Objects every cluster gets: CoreDNS as the Service kube-dns, a default StorageClass with four volumes. Pure."""

from __future__ import annotations

from typing import Any

from local_cluster.addresses import Plan
from local_cluster.node import CLUSTER_DOMAIN, VOLUMES

Object = dict[str, Any]

COREDNS_IMAGE = "localhost/hypermesh/coredns:1"
VOLUME_COUNT = 4
VOLUME_SIZE = "10Gi"
STORAGE_CLASS = "standard"


def volume_name(number: int) -> str:
    """Name of a volume and of its directory."""
    return f"local-volume-{number}"


def corefile() -> str:
    """Names of the cluster only: no query ever leaves the machine."""
    return f""".:53 {{
    errors
    health [::]:8080
    ready [::]:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus [::]:9153
    cache 30
    reload
    loadbalance
}}
"""


def _meta(name: str, namespaced: bool = True) -> Object:
    labels = {"k8s-app": "kube-dns"}
    return {"name": name, "labels": labels, **({"namespace": "kube-system"} if namespaced else {})}


def dns(plan: Plan) -> list[Object]:
    """CoreDNS with the rights it needs and nothing more."""
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    subjects = [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "metrics", "port": 9153, "protocol": "TCP"},
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    service = {
        "clusterIP": str(plan.dns_service),
        "ipFamilies": ["IPv6"],
        "selector": {"k8s-app": "kube-dns"},
        "ports": ports,
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("coredns")},
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": _meta("system:coredns", False), "rules": rules},
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": _meta("system:coredns", False),
            "roleRef": role,
            "subjects": subjects,
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta("coredns"), "data": {"Corefile": corefile()}},
        {"apiVersion": "v1", "kind": "Service", "metadata": _meta("kube-dns"), "spec": service},
        _dns_deployment(),
    ]


def _dns_deployment() -> Object:
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "coredns",
        "image": COREDNS_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"requests": {"cpu": "50m", "memory": "40Mi"}, "limits": {"memory": "170Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "failureThreshold": 5},
        "securityContext": security,
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    labels = {"k8s-app": "kube-dns"}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta("coredns"), "spec": spec}


def storage() -> list[Object]:
    """A default StorageClass and its volumes: one directory each, the same on every node, so they bind anywhere."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(volume(number) for number in range(1, VOLUME_COUNT + 1))]


def volume(number: int) -> Object:
    """A local volume. `local` wants a node affinity; any Linux node will do."""
    everywhere = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    spec = {
        "capacity": {"storage": VOLUME_SIZE},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": STORAGE_CLASS,
        "local": {"path": f"{VOLUMES}/{volume_name(number)}"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [everywhere]}]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(number)},
        "spec": spec,
    }


def everything(plan: Plan) -> Object:
    """All of it as one List."""
    return {"apiVersion": "v1", "kind": "List", "items": [*dns(plan), *storage()]}
