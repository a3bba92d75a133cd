"""A whole node's proxy part in this namespace: the real service, real TLS, a real API server.

inside_ledger.py gives it the mirror of a real ledger; inside_service.py one that the test feeds, because an honest
ledger would never deliver the damaged records that a node must refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, cast

from namespaces import Wire
from proxy_world import Signed, World
from tls_papers import tls_identity

from hypermesh import addressing, conditions
from hypermesh_agent.directory import AssetDirectory
from hypermesh_agent.identity import NodeIdentity, TlsIdentity
from hypermesh_agent.proxy.service import ProxyConfig, ProxyService
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import NAMESPACES, NODES, PROXY_MAPPINGS
from hypermesh_clients.mirror import Mirror

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "team-a"


async def until(predicate: Callable[[], Awaitable[Any]], what: str, seconds: float = 60.0) -> Any:
    """Waits until `predicate` gives something true, and returns that."""
    end = time.monotonic() + seconds
    while not (found := await predicate()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.02)
    return found


@dataclass
class Node:
    """The running node, and what the tests do around it."""

    world: World
    mirror: Mirror
    kube: Kube
    wire: Wire
    config: ProxyConfig
    tls: TlsIdentity
    service: ProxyService | None = None
    task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        identity = NodeIdentity.certified(
            "node-1", str(self.wire.here), self.world.node.keypair, self.world.node.record.certificate
        )
        directory = AssetDirectory("node-1", self.world.here.key_id)
        self.service = ProxyService(self.kube, self.mirror, identity, self.tls, self.config, directory)
        self.task = asyncio.create_task(self.service.run())
        await until(self._ready, "the proxy part to be ready")

    async def _ready(self) -> bool:
        assert self.task is not None
        assert self.service is not None
        if self.task.done():
            self.task.result()
        return self.service.problem() is None

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None

    async def announce(self, signed: Signed, name: str, **spec: Any) -> None:
        """What the operator writes: the ProxyMapping of a committed allocation."""
        operation, record = signed.operation, signed.record
        body = {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "address": str(IPv6Address(operation.address)),
                "port": operation.port,
                "protocol": "TCP",
                "allocationName": name,
                "allocationID": operation.allocation_id.hex(),
                "assetName": "node-1-asset",
                "nodeName": "node-1",
                "leaseExpirationTime": conditions.timestamp(conditions.from_milliseconds(record.expires_ms)),
                "ledgerHeight": record.height,
                "transactionHash": record.tx_hash.hex(),
                **spec,
            },
        }
        await self.kube.create(PROXY_MAPPINGS, body)

    async def condition(self, name: str, status: str, seconds: float = 60.0) -> dict[str, Any]:
        """Waits for ProxyMapping `name` to say Programmed=`status`; returns the whole status."""

        async def said() -> dict[str, Any] | None:
            found = (await self.kube.get(PROXY_MAPPINGS, name, NAMESPACE)).get("status") or {}
            conditions_ = found.get("conditions") or [{"status": "none yet"}]
            return found if conditions_[0]["status"] == status else None

        return cast(dict[str, Any], await until(said, f"ProxyMapping {name} to be Programmed={status}", seconds))

    async def use(self, signed: Signed, deeds: str, *, token: str | None = None, address: str = "") -> str:
        """Runs `deeds` (a body with `client` in it) as a program in the consumer's namespace; what it printed."""
        target = address or str(IPv6Address(signed.operation.address))
        arguments = f"{target!r}, {token or signed.token!r}, ca, patience=1, timeout=10"
        program = (
            "import asyncio, sys\n"
            "from hypermesh_clients.resource import ResourceClient, ResourceError\n"
            "async def main():\n"
            f"  ca = open({str(self._authority())!r}, 'rb').read()\n"
            f"  async with ResourceClient({arguments}) as client:\n"
            "    try:\n"
            + "".join(f"      {line}\n" for line in deeds.strip().splitlines())
            + "    except ResourceError as error: print(error.reason, '|', error)\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(
            *self.wire.consumer(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0
        return said.decode().strip()

    def _authority(self) -> Path:
        path = self.config.state / "ca.crt"
        path.write_bytes(self.tls.root_pem)
        return path


@contextlib.asynccontextmanager
async def running(world: World, wire: Wire, kubeconfig: Path, directory: Path, mirror: Mirror) -> AsyncIterator[Node]:
    """The node with its API objects; call `start` on it."""
    async with Kube.from_kubeconfig(kubeconfig) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        for name, address in (("node-1", wire.here), ("node-2", wire.there)):
            await kube.create(NODES, {"metadata": {"name": name}})
            addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": str(address)}]
            await kube.merge_patch(NODES, name, {"status": {"addresses": addresses}}, subresource="status")
        wire.route(world.here.prefix)
        config = ProxyConfig(state=directory / "state", pool=directory / "pool", audit_seconds=0.5)
        config.state.mkdir()
        tls = tls_identity(addressing.tls_name(world.here.prefix))
        node = Node(world, mirror, kube, wire, config, tls)
        try:
            yield node
        finally:
            await node.stop()


def install_definitions(kubeconfig: Path) -> None:
    """The CRDs of this checkout, by kubectl."""
    kubectl = ROOT / "build" / "bin" / "kubectl"
    command = [str(kubectl), "--kubeconfig", str(kubeconfig)]
    subprocess.run([*command, "apply", "--server-side", "-f", str(ROOT / "crds")], check=True, capture_output=True)
    wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]
    subprocess.run([*command, *wait], check=True, capture_output=True)
