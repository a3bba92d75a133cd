"""Three nodes: an Allocation on node 2, used from a Pod on node 3 through its proxy address."""

from __future__ import annotations

import json

from .support import Mesh, allocation, is_true


def consumer(command: str) -> dict[str, object]:
    """A Pod on node 3 with the access Secret mounted, running the plugin's client."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "consumer", "namespace": "default"},
        "spec": {
            "nodeName": "node-3",
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "consumer",
                    "image": "docker.io/library/hypermesh:dev",
                    "imagePullPolicy": "Never",
                    "command": ["python3", "-c", command],
                    "volumeMounts": [{"name": "access", "mountPath": "/access", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "access", "secret": {"secretName": "remote-access"}}],
        },
    }


PROGRAM = """
import asyncio, pathlib
from hypermesh_clients.resource import ResourceClient
access = pathlib.Path("/access")
async def main():
    client = ResourceClient(
        (access / "address").read_text(), (access / "token").read_text(), (access / "ca.crt").read_bytes(),
        port=int((access / "port").read_text()))
    async with client:
        await client.write(12345, b"across nodes")
        print((await client.describe()).node_name, (await client.read(12345, 12)).decode())
asyncio.run(main())
"""


def test_every_node_publishes_its_hardware(three: Mesh) -> None:
    nodes = {asset["spec"]["nodeName"] for asset in three.objects("assets") if is_true(asset, "Ready")}
    assert nodes == {"node-1", "node-2", "node-3"}


def test_memory_of_node_2_is_used_from_a_pod_on_node_3(three: Mesh) -> None:
    asset = next(
        a for a in three.objects("assets") if a["spec"]["nodeName"] == "node-2" and a["spec"]["type"] == "memory"
    )
    three.apply([allocation("remote", "memory", "4Mi", assetName=asset["metadata"]["name"])])
    three.kubectl("wait", "--for=condition=Ready", "allocation/remote", "--timeout=60s")
    three.kubectl("apply", "-f", "-", stdin=json.dumps(consumer(PROGRAM)))
    three.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/consumer", "--timeout=90s")
    assert three.kubectl("logs", "consumer").strip() == "node-2 across nodes"


def test_only_the_owning_node_holds_the_mapping(three: Mesh) -> None:
    found = next(a for a in three.objects("allocations") if a["metadata"]["name"] == "remote")
    address = found["status"]["proxyAddress"]
    tables = {
        node: three.node_exec(node, "nft", "-j", "list", "table", "ip6", "hypermesh")
        for node in ("node-1", "node-2", "node-3")
    }
    assert {node for node, text in tables.items() if address in text} == {"node-2"}
