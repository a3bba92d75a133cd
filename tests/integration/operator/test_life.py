"""The life of an Allocation between a real API server and a real ledger: granted, shown, expired, released."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from hypermesh import operations
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import NotFound
from hypermesh_clients.kube_resources import EVENTS, PROXY_MAPPINGS, SECRETS
from hypermesh_operator import manifests, objects

from ...builders import CLUSTER_UID
from ..operator_fixture import LIMIT_S, TENANT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}


async def test_from_apply_to_usable_address_and_back(mesh: Mesh) -> None:
    async with mesh.operator() as operator, mesh.reporting():
        created = await mesh.apply("scratch", {**ONE_GI, "minTrustScore": 40, "maxPricePerHour": "0.5"})
        status = await mesh.until("scratch", "Ready")
        uid = created["metadata"]["uid"]
        allocation_id = operations.allocation_id(CLUSTER_UID, uid)
        record = mesh.ledger.mirror.allocations[allocation_id]
        signed = operations.decode(record.envelope).operation.allocate
        assert (signed.min_trust_score, signed.max_price_per_hour) == (4000, str(10**18 // 2))
        grant = objects.grant(record)
        assert [item["type"] for item in status["conditions"]] == ["Proven", "Reserved", "Programmed", "Ready"]
        assert {item["status"] for item in status["conditions"]} == {"True"}
        assert status["proxyAddress"] == grant.address
        assert status["ledger"] == {
            "chainID": mesh.ledger.chain_id,
            "height": record.height,
            "transactionHash": record.tx_hash.hex(),
        }
        assert status["granted"] == {"memory": "1Gi"}
        assert status["nodeName"] == "node-1"
        secret = await mesh.kube.get(SECRETS, status["accessSecretName"], TENANT)
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        assert manifests.capability_hash(data["token"].decode()) == grant.capability_hash
        assert data["address"].decode() == grant.address
        assert data["ca.crt"] == mesh.ledger.ca_pem
        mapping = await mesh.kube.get(PROXY_MAPPINGS, "scratch", TENANT)
        assert mapping["spec"]["allocationID"] == allocation_id.hex()
        assert mapping["metadata"]["ownerReferences"][0]["uid"] == uid

        await mesh.delete("scratch")
        await mesh.until_gone("scratch")
        ended = mesh.ledger.mirror.allocations[allocation_id]
        assert ended.state == ledger_pb2.ALLOCATION_STATE_RELEASED
        assert b"token" not in operator.log().encode() or data["token"].decode() not in operator.log()


async def test_transitions_are_events_and_nothing_else_is(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        uid = (await mesh.apply("told", ONE_GI))["metadata"]["uid"]
        await mesh.until("told", "Ready")
        async with asyncio.timeout(LIMIT_S):
            while True:
                events = [item for item in await mesh.kube.list(EVENTS, TENANT) if item["regarding"].get("uid") == uid]
                if any(item["reason"] == "Ready" for item in events):
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        events = [item for item in await mesh.kube.list(EVENTS, TENANT) if item["regarding"].get("uid") == uid]
        reasons = [item["reason"] for item in events]
        assert sorted(set(reasons)) == sorted(reasons), "no event twice"
        assert set(reasons) <= {"Reserved", "Ready"}


async def test_says_why_nothing_fits_and_takes_the_next_that_does(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("big", {"type": "memory", "resources": {"memory": "100Gi"}})
        status = await mesh.until("big", "Ready", "NoAssetFits")
        message = next(item["message"] for item in status["conditions"] if item["type"] == "Ready")
        assert message == "no memory asset fits: 1 too small (largest free 64Gi)"
        await mesh.apply("gpu", {"type": "gpu", "resources": {"gpuMemory": "1Gi"}})
        status = await mesh.until("gpu", "Ready", "NoAssetFits")
        assert "no gpu asset is registered on the ledger" in json.dumps(status)
        other = await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-1", 128 << 30)
        status = await mesh.until("big", "Reserved")
        assert status["assetName"] == other.name
        await mesh.delete("big")
        await mesh.until_gone("big")
        await mesh.retire("node-1", other)


async def test_a_freed_asset_goes_to_the_one_who_waits(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        whole = {"type": "memory", "resources": {"memory": "64Gi"}}
        await mesh.apply("first", whole)
        await mesh.until("first", "Ready")
        await mesh.apply("second", whole)
        await mesh.until("second", "Ready", "NoAssetFits")
        await mesh.delete("first")
        await mesh.until("second", "Ready")


async def test_an_expired_lease_is_shown_and_never_renewed_by_itself(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("brief", {**ONE_GI, "leaseDuration": "10s"})
        granted = await mesh.until("brief", "Ready")
        assert "leaseExpirationTime" in granted
        status = await mesh.until("brief", "Ready", "LeaseExpired")
        assert "Delete this Allocation and apply a new one." in json.dumps(status)
        assert mesh.active() == []
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    await mesh.kube.get(PROXY_MAPPINGS, "brief", TENANT)
                except NotFound:
                    break
                await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        assert mesh.active() == []
        await mesh.delete("brief")
        await mesh.until_gone("brief")


async def test_the_same_name_again_is_another_allocation(mesh: Mesh) -> None:
    """No controller collects garbage here: the old mapping and Secret still stand when the new one comes."""
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("twice", ONE_GI)
        first = await mesh.until("twice", "Ready")
        await mesh.delete("twice")
        await mesh.until_gone("twice")
        await mesh.apply("twice", ONE_GI)
        second = await mesh.until("twice", "Ready")
        assert second["allocationID"] != first["allocationID"]
        mapping = await mesh.kube.get(PROXY_MAPPINGS, "twice", TENANT)
        assert mapping["spec"]["allocationID"] == second["allocationID"]
        secret = await mesh.kube.get(SECRETS, "twice-access", TENANT)
        assert base64.b64decode(secret["data"]["address"]).decode() == second["proxyAddress"]


async def test_prices_and_owners_are_kept(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        asset = mesh.registered("node-1-mem-0")
        await mesh.update("node-1", asset, price_per_hour=str(64 * 10**18), paused=False)
        await mesh.apply("cheap", {**ONE_GI, "maxPricePerHour": "0.5"})
        status = await mesh.until("cheap", "Ready", "NoAssetFits")
        assert "1 dearer than 0.5 Caesar an hour (cheapest 1)" in json.dumps(status)
        await mesh.update("node-1", asset, price_per_hour=str(32 * 10**18))
        await mesh.until("cheap", "Ready")
        await mesh.update("node-1", asset, price_per_hour="0", paused=True)
        await mesh.apply("late", ONE_GI)
        status = await mesh.until("late", "Ready", "NoAssetFits")
        assert "1 paused by the owner" in json.dumps(status)
        await mesh.update("node-1", asset, paused=False)
        await mesh.until("late", "Ready")
