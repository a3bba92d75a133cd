"""Helpers of the cluster tests: commands, waiting with a bound, and reading the three truths independently.

The official `kubernetes` client reads the API server here, `nft` and the file system read the kernel, and the ledger is
asked from inside its own pod: none of them is the code under test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from hypermesh.quantities import parse
from hypermesh.resources import RESOURCE_OF_TYPE

ROOT = Path(__file__).parents[2]
NAMESPACE = "hypermesh-system"
T = TypeVar("T")


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who followed the README."""
    path = os.pathsep.join([str(ROOT / "build" / "bin"), str(ROOT / ".venv" / "bin"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, **more}


def run(
    command: Iterable[str], *, stdin: str | None = None, timeout: float = 120, check: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """One command with its output as text; raises AssertionError with both streams when it fails."""
    words = list(command)
    done = subprocess.run(
        words,
        input=stdin,
        text=True,
        capture_output=True,
        timeout=timeout,
        cwd=ROOT,
        env=environment(**env),
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(words)} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
    return done


def eventually(what: str, probe: Callable[[], T | None], *, seconds: float = 60, pause: float = 0.2) -> T:
    """The first truthy answer of `probe`; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not true within {seconds:.0f} s; last answer {answer!r}")
        time.sleep(pause)


class Mesh:
    """A running cluster with the chart installed."""

    def __init__(self, kubeconfig: str) -> None:
        from kubernetes import client, config

        self.kubeconfig = kubeconfig
        configuration = client.Configuration()
        config.load_kube_config(kubeconfig, client_configuration=configuration)
        self.api = client.ApiClient(configuration)
        self.custom = client.CustomObjectsApi(self.api)
        self.core = client.CoreV1Api(self.api)

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
        done = run(["kubectl", *words], stdin=stdin, timeout=timeout, check=check, KUBECONFIG=self.kubeconfig)
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def plugin(self, *words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(["kubectl-hypermesh", *words], stdin=stdin, check=check, KUBECONFIG=self.kubeconfig)

    def objects(self, plural: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """All objects of one of our kinds."""
        arguments = ("hypermesh.online", "v1alpha1")
        if namespace is None:
            found = self.custom.list_cluster_custom_object(*arguments, plural)
        else:
            found = self.custom.list_namespaced_custom_object(*arguments, namespace, plural)
        return list(found["items"])

    def apply(self, documents: list[dict[str, Any]]) -> None:
        """All documents in one kubectl call."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("apply", "-f", "-", stdin=text, timeout=600)

    def node_exec(self, node: str, *words: str) -> str:
        """A command in a node of the embedded cluster."""
        return run([sys.executable, "hack/cluster", "node-exec", node, "--", *words]).stdout

    def ledger(self, number: int = 0) -> dict[str, Any]:
        """One ledger's own account of its assets and allocations, from inside its pod."""
        pod = f"hypermesh-ledger-{number}"
        text = self.kubectl("-n", NAMESPACE, "exec", pod, "--", "hypermesh-ledger", "state", "-o", "json")
        return dict(json.loads(text))


def amount(kind: str, quantities: dict[str, Any]) -> int:
    """Base units (millicores, bytes) of a status map such as `granted` or `capacity`."""
    return parse(RESOURCE_OF_TYPE[kind], quantities[RESOURCE_OF_TYPE[kind]])


def allocation(name: str, kind: str, quantity: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """An Allocation manifest."""
    return {
        "apiVersion": "hypermesh.online/v1alpha1",
        "kind": "Allocation",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": kind, "resources": {RESOURCE_OF_TYPE[kind]: quantity}, **spec},
    }


def condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """The named condition, or an empty dictionary."""
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def is_true(item: dict[str, Any], kind: str) -> bool:
    return condition(item, kind).get("status") == "True"
