"""The ledger loses its volume and begins a new chain: heights start over, and nobody is enrolled or registered."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from hypermesh.conditions import find
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube_resources import EVENTS, SECRETS

from ..operator_fixture import LIMIT_S, TENANT, Mesh, running_mesh

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}


async def begin_anew(mesh: Mesh) -> None:
    """Another chain, on which the same operator and node are enrolled."""
    ledger, before = mesh.ledger, mesh.ledger.chain_id
    await ledger.stop()
    shutil.rmtree(ledger.home)
    await ledger.start()
    await ledger.mirror.wait_until(lambda: ledger.chain_id != before, LIMIT_S)
    for member in (mesh.signer, *mesh.nodes.values()):
        await ledger.submit(member, enrol_node=ledger_pb2.EnrolNode(certificate=member.certificate))
    await ledger.mirror.wait_until(lambda: mesh.signer.key_id in ledger.mirror.nodes, LIMIT_S)


@pytest.mark.asyncio
async def test_what_a_lost_chain_held_is_told_and_allocated_anew(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        asset = await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-0", 8 << 30)
        async with mesh.operator(), mesh.reporting():
            uid = (await mesh.apply("held", ONE_GI))["metadata"]["uid"]
            await mesh.apply("brief", {**ONE_GI, "leaseDuration": "10s"})
            first = await mesh.until("held", "Ready")
            secret = await mesh.kube.get(SECRETS, "held-access", TENANT)
            await mesh.until("brief", "Ready", "LeaseExpired")

            await begin_anew(mesh)
            status = await mesh.until("held", "Reserved", "ChainReplaced", status="False")
            reserved = find(status["conditions"], "Reserved")
            assert reserved is not None
            assert f"Chain {first['ledger']['chainID']} held it and is gone" in reserved["message"]
            assert "write it again" in reserved["message"]
            assert "proxyAddress" not in status

            await mesh.prove("node-1")
            await mesh.ledger.register(mesh.nodes["node-1"], asset)
            second = await mesh.until("held", "Ready")
            assert second["ledger"]["chainID"] == mesh.ledger.chain_id != first["ledger"]["chainID"]
            assert second["proxyAddress"] == first["proxyAddress"], "it follows from hardware and Allocation"
            assert (await mesh.kube.get(SECRETS, "held-access", TENANT))["data"] == secret["data"]
            assert len(mesh.active()) == 1, "the lease that was over does not come back"
            brief = find((await mesh.status("brief"))["conditions"], "Ready")
            assert brief is not None
            assert brief["reason"] == "LeaseExpired"
            async with asyncio.timeout(LIMIT_S):
                while True:
                    events = await mesh.kube.list(EVENTS, TENANT)
                    if "ChainReplaced" in {item["reason"] for item in events if item["regarding"].get("uid") == uid}:
                        break
                    await asyncio.sleep(0.1)
