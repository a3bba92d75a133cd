"""A node's whole surroundings on one loopback: API server, TrustChain, a one-validator ledger, and the agent itself.

The operator is there for tests that start it.

Everything is real, and runs in a network namespace of its own whose only interface is `lo`, so the well-known ports
are free and what the agent programs in the kernel goes away with it. Service names are resolved by an /etc/hosts that
only these processes see. What the chart grants and forbids (RBAC, admission policies) is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_errors import AlreadyExists, KubeError
from hypermesh_clients.kube_resources import (
    ASSETS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    Resource,
)

ROOT = Path(__file__).resolve().parents[3]
BINARIES = ROOT / "build" / "bin"
sys.path += [str(ROOT / "hack" / "cluster"), str(ROOT)]  # last: they shadow nothing
from local_cluster.private_api import private_api  # noqa: E402
from tests.api_objects import kubeconfig, pod_of, token  # noqa: E402

NAMESPACE = "hypermesh-system"
NODE = "node1"
AGENT_METRICS, TRUSTCHAIN_METRICS, LEDGER_METRICS, OPERATOR_METRICS = 7470, 7471, 7472, 7473
PARAMETERS = {
    "epochMs": "8000",
    "graceEpochs": "2",
    "spaceMinK": 18,
    "spaceChallenges": 32,
    "spaceRequired": 8,
    "workN": 256,
    "workTile": 8,
    "workRounds": 2,
    "workSamples": 16,
    "vdfIterations": "2000",
    "vdfDiscriminantBits": 1024,
}
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_WORKLOADS = frozenset({"DaemonSet", "Deployment", "StatefulSet", "Pod", "Service"})
_LAST = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


_network: list[int] = []
"""Descriptor of the namespace, once it is made."""


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and all it starts, in a network namespace with only `lo`; back in the old one afterwards.

    One for all meshes of this process, emptied after each: threads of gRPC that served a client of the first mesh
    serve those of the next, and a thread stays in the namespace that it was born in.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if _network:
        _enter(_network[0])
    else:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare of the network: run as root")
        _network.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)  # with its addresses and routes
        _enter(before)
        os.close(before)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Process:
    """One of our processes, started with its own /etc/hosts; its log is in `log`."""

    name: str
    command: list[str]
    environment: dict[str, str]
    hosts: Path
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = f'mount --bind {self.hosts} /etc/hosts && exec "$@"'
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", script, self.name, *self.command]
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def kill(self) -> None:
        """kill -9."""
        assert self.running is not None
        self.running.kill()
        self.running.wait(10)

    def stop(self, limit: float = 20) -> int | None:
        """SIGTERM and its exit status; kill -9 (and None) when it does not end in time."""
        if self.running is None or self.running.poll() is not None:
            return self.running.returncode if self.running is not None else None
        self.running.terminate()
        try:
            return self.running.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Mesh:
    """Everything that runs, and the administrator's client."""

    directory: Path
    kubeconfig: Path
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def agent(self) -> Process:
        return self.processes["agent"]

    def kube(self) -> Kube:
        return Kube.from_kubeconfig(self.kubeconfig)

    async def assets(self, kube: Kube, kind: str | None = None) -> list[dict[str, Any]]:
        found = await kube.list(ASSETS)
        return [asset for asset in found if kind in (None, asset["spec"]["type"])]


def ready(port: int) -> tuple[int, str]:
    """Status and text of a process's /readyz; (0, reason) when it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://[::1]:{port}/readyz", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def metrics(port: int) -> dict[str, float]:
    """Sample name (with labels) -> value."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://[::1]:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


async def until(what: str, probe: Callable[[], Any], limit: float = 60.0, every: float = 0.1) -> Any:
    """The first true answer of `probe` (may be async). Fails after `limit` seconds with the last answer."""
    deadline = time.monotonic() + limit
    while True:
        answer = probe()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit} s; last answer: {answer!r}")
        await asyncio.sleep(every)


def _rendered() -> str:
    command = [BINARIES / "helm", "template", "hypermesh", ROOT / "charts" / "hypermesh", "-n", NAMESPACE]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def install(kube: Kube) -> None:
    """What the chart installs, but for the workloads: they run here as processes."""
    await _create(kube, NAMESPACES, {"metadata": {"name": NAMESPACE}})
    objects = [item for item in yaml.safe_load_all(_rendered()) if item and item["kind"] not in _WORKLOADS]
    objects = [item for item in objects if "helm.sh/hook" not in item["metadata"].get("annotations", {})]
    if not any(item["kind"] == "CustomResourceDefinition" for item in objects):
        objects = [*(yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))), *objects]
    for item in sorted(objects, key=lambda item: item["kind"] in _LAST):
        await _create(kube, _resource(item), item)
    for name in ("assets", "allocations", "proxymappings"):
        await until(f"CRD {name}", lambda name=name: _established(kube, f"{name}.hypermesh.online"))


async def _established(kube: Kube, name: str) -> bool:
    crd = await kube.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


def _resource(item: dict[str, Any]) -> Resource:
    group, _, version = item["apiVersion"].rpartition("/")
    kind = item["kind"]
    singular = kind.lower()
    plural = f"{singular[:-1]}ies" if singular.endswith("y") else f"{singular}s"
    namespaced = "namespace" in item["metadata"]
    return Resource(group, version, plural, kind, namespaced)


async def _create(kube: Kube, resource: Resource, item: dict[str, Any]) -> None:
    with contextlib.suppress(AlreadyExists):
        await kube.create(resource, item)


@contextlib.asynccontextmanager
async def running_mesh(directory: Path, pool: Path, parameters: dict[str, Any] = PARAMETERS) -> AsyncIterator[Mesh]:
    """TrustChain and ledger up and ready; agent and operator are started by the tests."""
    hosts = directory / "hosts"
    names = [f"{name}.{NAMESPACE}.svc" for name in ("hypermesh-trustchain", "hypermesh-ledger")]
    hosts.write_text("::1 localhost\n" + "".join(f"::1 {name}\n" for name in names))
    (directory / "parameters.json").write_text(json.dumps(parameters))
    with private_api(directory / "api", BINARIES) as api:
        mesh = Mesh(directory, api.kubeconfig)
        async with mesh.kube() as kube:
            await install(kube)
            await _create(kube, NODES, {"metadata": {"name": NODE}})
            for account in ("trustchain", "ledger", "agent", "operator"):
                await _prepare(mesh, kube, f"hypermesh-{account}", hosts, pool)
        try:
            for name, port in (("trustchain", TRUSTCHAIN_METRICS), ("ledger", LEDGER_METRICS)):
                mesh.processes[name].start()
                try:
                    await until(f"{name} ready", lambda port=port: ready(port)[0] == 200, 60)
                except AssertionError as error:
                    raise AssertionError(f"{error}\n{mesh.processes[name].text()[-3000:]}") from error
            yield mesh
        finally:
            for process in reversed(mesh.processes.values()):
                process.stop()


async def _prepare(mesh: Mesh, kube: Kube, account: str, hosts: Path, pool: Path) -> None:
    short = account.removeprefix("hypermesh-")
    token_file = mesh.directory / f"{short}.token"
    pod = await pod_of(kube, account, NODE)
    token_file.write_text(await token(kube, account, pod=pod, audience="hypermesh-trustchain"))
    config = kubeconfig(mesh.kubeconfig, mesh.directory / f"{short}.kubeconfig", await token(kube, account, pod=pod))
    environment = {
        "KUBECONFIG": str(config),
        "POD_NAMESPACE": NAMESPACE,
        "POD_NAME": account,
        "NODE_NAME": NODE,
        "NODE_IP": "::1",
        "HYPERMESH_TOKEN_FILE": str(token_file),
        "HYPERMESH_STATE": str(mesh.directory / "state"),
        "HYPERMESH_POOL": str(pool),
        "HYPERMESH_RESERVED_STORAGE": "1Gi",
        "HYPERMESH_SURVEY_SECONDS": "3",
        "OQS_INSTALL_PATH": str(ROOT / "build" / "liboqs"),
        "PYTHONSAFEPATH": "1",
        "no_proxy": "*",
    }
    python = [sys.executable, "-P", "-m"]
    commands = {
        "trustchain": [*python, "hypermesh_trustchain.main", "--listen", "[::1]:7440"],
        "ledger": [
            *(*python, "hypermesh_ledger.main", "run", "--home", str(mesh.directory / "ledger")),
            *("--host", "::1", "--proof-parameters", str(mesh.directory / "parameters.json")),
        ],
        "agent": [*python, "hypermesh_agent.main", "run"],
        "operator": [*python, "hypermesh_operator.main", "--kubeconfig", str(config)],
    }
    ports = {
        "trustchain": TRUSTCHAIN_METRICS,
        "ledger": LEDGER_METRICS,
        "agent": AGENT_METRICS,
        "operator": OPERATOR_METRICS,
    }
    environment["HYPERMESH_METRICS_PORT"] = str(ports[short])
    mesh.processes[short] = Process(short, commands[short], environment, hosts, mesh.directory / f"{short}.log")


async def condition(kube: Kube, name: str, kind: str) -> str | None:
    """Status of a condition of an Asset; None when the Asset or the condition is not there."""
    try:
        asset = await kube.get(ASSETS, name)
    except KubeError:
        return None
    found = [item for item in (asset.get("status") or {}).get("conditions") or [] if item["type"] == kind]
    return found[0]["status"] if found else None
