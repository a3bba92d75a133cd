"""Somebody is away: the ledger, the API server, the leader. It says so, waits within bounds, and takes up again."""

from __future__ import annotations

import asyncio
import json

import pytest

from hypermesh_clients.kube_resources import ALLOCATIONS, LEASES

from ..operator_fixture import LIMIT_S, SYSTEM, TENANT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}


async def test_deletion_never_hangs_on_a_ledger_that_is_gone(mesh: Mesh) -> None:
    async with mesh.operator(HYPERMESH_RELEASE_TIMEOUT="12") as operator, mesh.reporting():
        await mesh.apply("left", ONE_GI)
        await mesh.until("left", "Ready")
        await mesh.ledger.stop()
        try:
            async with asyncio.timeout(LIMIT_S):
                while (ready := await asyncio.to_thread(operator.probe, "/readyz"))[0] == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            assert "[-] ledger: " in ready[1]
            await mesh.apply("new", ONE_GI)
            status = await mesh.until("new", "Ready", "LedgerUnavailable")
            assert "Check the hypermesh-ledger pods" in json.dumps(status)
            await mesh.delete("left")
            status = await mesh.until("left", "Ready", "Releasing")
            message = next(item["message"] for item in status["conditions"] if item["type"] == "Ready")
            assert message.startswith("Waits until 2")
            assert "at the latest for the ledger to commit the release" in message
            await mesh.until_gone("left")
        finally:
            await mesh.ledger.start()
        await mesh.ledger.mirror.wait_until(lambda: len(mesh.active()) == 1, LIMIT_S)  # the sweep released "left"
        await mesh.until("new", "Ready")


async def test_what_was_deleted_while_no_operator_ran_is_released(mesh: Mesh) -> None:
    """Somebody took the finalizer away by force."""
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("orphan", ONE_GI)
        await mesh.until("orphan", "Ready")
    await mesh.kube.merge_patch(ALLOCATIONS, "orphan", {"metadata": {"finalizers": []}}, TENANT)
    await mesh.delete("orphan")
    await mesh.until_gone("orphan")
    assert len(mesh.active()) == 1
    async with mesh.operator():
        await mesh.ledger.mirror.wait_until(lambda: not mesh.active(), LIMIT_S)


async def test_only_the_leader_acts_and_a_standby_takes_over(mesh: Mesh) -> None:
    first = await mesh.spawn()
    await mesh.until_leads(first)
    second = await mesh.spawn()
    try:
        async with asyncio.timeout(LIMIT_S):
            while (await asyncio.to_thread(second.probe, "/readyz"))[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert "allocations" not in second.probe("/readyz")[1], "a standby is ready without watching"
        holder = (await mesh.kube.get(LEASES, "hypermesh-operator", SYSTEM))["spec"]["holderIdentity"]
        assert "leads" not in second.log()
        assert first.stop() == 0
        async with mesh.reporting():
            await mesh.apply("after", ONE_GI)
            await mesh.until("after", "Ready")
        now = (await mesh.kube.get(LEASES, "hypermesh-operator", SYSTEM))["spec"]["holderIdentity"]
        assert now != holder
    finally:
        first.stop()
        assert second.stop() == 0


async def test_a_lost_lease_ends_the_process(mesh: Mesh) -> None:
    operator = await mesh.spawn()
    await mesh.until_leads(operator)
    patch = {"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3600}}
    await mesh.kube.merge_patch(LEASES, "hypermesh-operator", patch, SYSTEM)
    status = await asyncio.to_thread(operator.process.wait, LIMIT_S)
    assert status == 1
    assert "is no longer held by" in operator.log()
