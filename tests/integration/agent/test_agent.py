"""The agent against a real API server, TrustChain and ledger: from an empty state to Assets, and through its accidents.

The tests of this module share one mesh and run in order; each leaves the agent running and ready.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import agent_mesh as meshes
import loop_devices as loops
import pytest
import pytest_asyncio
from agent_mesh import AGENT_METRICS, LEDGER_METRICS, NAMESPACE, NODE, Mesh, metrics, ready, until

from hypermesh.quantities import parse
from hypermesh.resources import RESOURCE_OF_TYPE
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS, LEASES, SECRETS
from hypermesh_clients.kube_secrets import contents
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.resource import ResourceClient

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
TENANT = "default"
RSS_LIMIT_KB = 80 * 1024
PROMISE_S = 2.0
"""A device that comes or goes is seen in the cluster within this time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    directory = tmp_path_factory.mktemp("mesh")
    pool = directory / "state" / "pool"
    pool.mkdir(parents=True)
    with meshes.own_network():
        async with meshes.running_mesh(directory, pool) as running:
            running.agent.start()
            try:
                yield running
            except BaseException:
                sys.stderr.write(running.agent.text()[-4000:])
                raise


async def settled(mesh: Mesh, kube: Kube, limit: float = 120) -> list[dict[str, Any]]:
    """All Assets that can be allocated, once every one of them is Ready; with the agent's log when that fails."""

    async def look() -> list[dict[str, Any]] | None:
        assert mesh.agent.running is not None
        assert mesh.agent.running.poll() is None, f"the agent ended:\n{mesh.agent.text()[-4000:]}"
        assets = await mesh.assets(kube)
        given = [asset for asset in assets if amount(asset, "capacity")]
        fine = given and all(status_of(asset, "Ready") == "True" for asset in given)
        return given if fine and {"cpu", "memory", "storage"} <= {asset["spec"]["type"] for asset in given} else None

    try:
        return list(await until("every Asset Ready", look, limit))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{mesh.agent.text()[-4000:]}") from error


def amount(asset: dict[str, Any], name: str) -> int:
    resource = RESOURCE_OF_TYPE[asset["spec"]["type"]]
    return parse(resource, ((asset.get("status") or {}).get(name) or {}).get(resource, "0"))


def status_of(asset: dict[str, Any], kind: str) -> str | None:
    conditions = (asset.get("status") or {}).get("conditions") or []
    return next((str(item["status"]) for item in conditions if item["type"] == kind), None)


async def test_the_machines_hardware_becomes_ready_assets(mesh: Mesh, kube: Kube, mirror: Mirror) -> None:
    assets = await settled(mesh, kube)
    node = await kube.get(meshes.NODES, NODE)
    for asset in assets:
        status, name = asset["status"], asset["metadata"]["name"]
        assert name == f"{NODE}-{asset['spec']['type']}-{status['assetID'][:8]}"
        assert asset["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        assert asset["metadata"]["labels"]["hypermesh.online/node"] == NODE
        assert [item["type"] for item in status["conditions"]] == ["Registered", "Proven", "Ready"]
        assert status["observedGeneration"] == asset["metadata"]["generation"]
        assert asset["spec"]["sharing"]["privacyLevel"] == "Private"
        record = mirror.assets[bytes.fromhex(status["assetID"])]
        assert record.registration.name == name
        assert record.registration.capacity == amount(asset, "capacity") == amount(asset, "free")
        assert record.registration.hardware_id == asset["spec"]["hardwareID"]
        assert status["trustScore"] == mirror.nodes[record.node].trust_score // 100
        for proof in ("space", "stake", "work", "time"):
            assert len(status["proofs"][proof]) == 64
    assert ready(AGENT_METRICS) == (200, "[+] agent\n[+] enrolment\n[+] watch\n[+] ledger\n[+] proxy\n")


async def test_capacities_are_the_machines(mesh: Mesh, kube: Kube) -> None:
    assets = await settled(mesh, kube)
    cpu = sum(amount(asset, "capacity") for asset in assets if asset["spec"]["type"] == "cpu")
    assert cpu == 1000 * len(os.sched_getaffinity(1))
    memory = [asset for asset in assets if asset["spec"]["type"] == "memory"]
    with open("/proc/meminfo") as file:  # noqa: PTH123, ASYNC230
        total = int(file.readline().split()[1]) * 1024
    assert sum(parse("memory", asset["status"]["memory"]["total"]) for asset in memory) == total
    assert sum(amount(asset, "capacity") for asset in memory) == total - (2 << 30)


async def test_the_agent_stays_small(mesh: Mesh, kube: Kube) -> None:
    await settled(mesh, kube)
    with open(f"/proc/{mesh.agent.pid}/status") as file:  # noqa: PTH123, ASYNC230
        lines = dict(line.split(":", 1) for line in file)
    assert int(lines["VmRSS"].split()[0]) <= RSS_LIMIT_KB


async def test_the_lease_is_the_heartbeat(mesh: Mesh, kube: Kube) -> None:
    name = f"hypermesh-agent-{NODE}"
    first = await kube.get(LEASES, name, NAMESPACE)
    assert first["spec"]["leaseDurationSeconds"] == 40

    async def renewed() -> bool:
        return bool((await kube.get(LEASES, name, NAMESPACE))["spec"]["renewTime"] > first["spec"]["renewTime"])

    await until("the lease is renewed", renewed, 30)


async def test_a_machine_at_rest_writes_only_tickets_that_would_go_stale(mesh: Mesh, kube: Kube) -> None:
    """Over five surveys: two versions of an Asset differ in more than tickets and readings, or by a grace of epochs."""
    await settled(mesh, kube)
    versions: dict[str, list[dict[str, Any]]] = {}
    surveys = metrics(AGENT_METRICS)['hypermesh_agent_surveys_total{cause="time"}']

    async def looked() -> bool:
        for asset in await mesh.assets(kube):
            known = versions.setdefault(asset["metadata"]["name"], [asset])
            if known[-1]["metadata"]["resourceVersion"] != asset["metadata"]["resourceVersion"]:
                known.append(asset)
        return metrics(AGENT_METRICS)['hypermesh_agent_surveys_total{cause="time"}'] >= surveys + 5

    await until("five more surveys", looked, 60, every=0.2)
    grace = meshes.PARAMETERS["graceEpochs"]
    for name, known in versions.items():
        for before, after in itertools.pairwise(known):
            first, second = before["status"], after["status"]
            said_more = without_motion(first) != without_motion(second)
            assert said_more or second["proofs"]["epoch"] > first["proofs"]["epoch"] + int(str(grace)) - 1, name


def without_motion(status: dict[str, Any]) -> str:
    """A status without tickets and without the clock frequency and swap of the moment."""
    rest = json.loads(json.dumps({key: value for key, value in status.items() if key != "proofs"}))
    rest.get("cpu", {}).pop("frequency", None)
    rest.get("memory", {}).pop("swapFree", None)
    return json.dumps(rest, sort_keys=True)


async def test_the_owners_edit_reaches_the_ledger(mesh: Mesh, kube: Kube, mirror: Mirror) -> None:
    assets = await settled(mesh, kube)
    (asset,) = [item for item in assets if item["spec"]["type"] == "memory"][:1]
    name, asset_id = asset["metadata"]["name"], bytes.fromhex(asset["status"]["assetID"])
    edit = {"privacyLevel": "Public", "pricePerHour": "0.25", "paused": True}
    await kube.merge_patch(ASSETS, name, {"spec": {"sharing": edit}})
    await until("the ledger pauses", lambda: mirror.assets[asset_id].registration.sharing.paused, 30)
    assert mirror.assets[asset_id].registration.sharing.price_per_hour == str(25 * 10**16)

    async def shown() -> bool:
        seen = await kube.get(ASSETS, name)
        ready_now = [item for item in seen["status"]["conditions"] if item["type"] == "Ready"]
        return ready_now[0]["reason"] == "Paused" and seen["status"]["revision"] == mirror.assets[asset_id].revision

    await until("the Asset says that it is paused", shown, 20)
    await kube.merge_patch(ASSETS, name, {"spec": {"sharing": {"paused": False}}})
    await settled(mesh, kube, 30)
    assert (await kube.get(ASSETS, name))["spec"]["sharing"]["privacyLevel"] == "Public"


async def test_a_disk_comes_and_goes(mesh: Mesh, kube: Kube, tmp_path: Path) -> None:
    await settled(mesh, kube)
    path = loops.image(tmp_path, "plugged.img", 64)
    identity = f"loop:{path}"

    async def shown() -> dict[str, Any] | None:
        found = [asset for asset in await mesh.assets(kube, "storage") if asset["spec"]["hardwareID"] == identity]
        return found[0] if found else None

    async def gone() -> bool:
        return await shown() is None

    with loops.attached(path) as device:
        await until("the new disk is an Asset", shown, PROMISE_S, every=0.02)

        async def explained() -> dict[str, Any] | None:
            asset = await shown()
            return asset if asset is not None and asset.get("status") else None

        asset = await until("its status is written", explained, PROMISE_S, every=0.02)
        assert parse("storage", asset["status"]["storage"]["size"]) == 64 << 20
        assert asset["status"]["storage"]["devicePath"] == device
        assert amount(asset, "free") == 0
        (ready_now,) = [item for item in asset["status"]["conditions"] if item["type"] == "Ready"]
        assert (ready_now["status"], ready_now["reason"]) == ("False", "NothingToGive")
        await asyncio.sleep(1)  # one Asset is written once a second at most; its end is no write that may be late
        loops.detach(device)
        await until("the Asset is gone", gone, PROMISE_S, every=0.02)


async def test_a_deleted_asset_comes_back_with_the_default_sharing(mesh: Mesh, kube: Kube, mirror: Mirror) -> None:
    (asset,) = [item for item in await settled(mesh, kube) if item["spec"]["type"] == "memory"][:1]
    name = asset["metadata"]["name"]
    await kube.delete(ASSETS, name)

    async def back() -> bool:
        found = [item for item in await mesh.assets(kube, "memory") if item["metadata"]["name"] == name]
        return bool(found) and found[0]["metadata"]["uid"] != asset["metadata"]["uid"]

    await until("the Asset is there again", back, 20)
    await settled(mesh, kube, 30)
    again = await kube.get(ASSETS, name)
    assert again["spec"]["sharing"]["privacyLevel"] == "Private"
    assert again["status"]["address"] == asset["status"]["address"]


async def test_someone_elses_change_of_the_labels_is_put_right(mesh: Mesh, kube: Kube) -> None:
    name = (await settled(mesh, kube))[0]["metadata"]["name"]
    await kube.merge_patch(ASSETS, name, {"metadata": {"labels": {"hypermesh.online/type": "wrong", "mine": "stays"}}})

    async def right() -> bool:
        labels = (await kube.get(ASSETS, name))["metadata"]["labels"]
        return labels["hypermesh.online/type"] == "cpu" and labels["mine"] == "stays"

    await until("the label is right again", right, 20)


async def test_kill_9_changes_nothing_and_trustchain_may_be_away(mesh: Mesh, kube: Kube, mirror: Mirror) -> None:
    before = {asset["metadata"]["name"]: asset for asset in await settled(mesh, kube)}
    nodes = set(mirror.nodes)
    mesh.processes["trustchain"].stop()
    mesh.agent.kill()
    mesh.agent.start()
    try:
        await until("the agent is ready again", lambda: ready(AGENT_METRICS)[0] == 200, 60)
        after = {asset["metadata"]["name"]: asset for asset in await settled(mesh, kube)}
        assert after.keys() == before.keys()
        for name, asset in after.items():
            assert asset["metadata"]["uid"] == before[name]["metadata"]["uid"]
            assert asset["status"]["address"] == before[name]["status"]["address"]
        assert set(mirror.nodes) == nodes
    finally:
        mesh.processes["trustchain"].start()
        await until("trustchain ready", lambda: ready(meshes.TRUSTCHAIN_METRICS)[0] == 200, 60)


async def test_without_the_ledger_it_is_not_ready_and_says_so(mesh: Mesh, kube: Kube) -> None:
    await settled(mesh, kube)
    mesh.processes["ledger"].stop()
    status, text = await until("not ready", lambda: (r := ready(AGENT_METRICS))[0] == 503 and r, 40)
    assert "[-] ledger: no block for" in text or "[-] ledger: nothing heard from the ledger" in text
    assert "[+] watch" in text
    assert status == 503
    mesh.processes["ledger"].start()
    await until("the ledger is ready", lambda: ready(LEDGER_METRICS)[0] == 200, 60)
    await until("the agent is ready again", lambda: ready(AGENT_METRICS)[0] == 200, 60)
    await settled(mesh, kube)


@contextlib.asynccontextmanager
async def opened(kube: Kube, name: str) -> AsyncIterator[ResourceClient]:
    """The hardware behind the Allocation's proxy address, as its tenant reaches it."""
    secret = contents(await kube.get(SECRETS, f"{name}-access", TENANT))
    async with ResourceClient(secret["address"].decode(), secret["token"].decode(), secret["ca.crt"]) as client:
        yield client


async def test_on_a_new_chain_the_node_begins_anew_and_its_tenants_come_back(
    mesh: Mesh, kube: Kube, mirror: Mirror
) -> None:
    """The ledger loses its volume: the agent, never restarted, enrols, proves, registers and programs again."""
    assets = {asset["metadata"]["name"]: asset for asset in await settled(mesh, kube)}
    operator, agent = mesh.processes["operator"], mesh.agent.pid
    operator.start()
    try:
        spec = {"type": "storage", "resources": {"storage": "1Mi"}}
        await kube.create(ALLOCATIONS, {"metadata": {"name": "held", "namespace": TENANT}, "spec": spec})

        async def usable() -> dict[str, Any] | None:
            assert mesh.agent.running is not None
            assert mesh.agent.running.poll() is None, f"the agent ended:\n{mesh.agent.text()[-4000:]}"
            found = await kube.get(ALLOCATIONS, "held", TENANT)
            chain = ((found.get("status") or {}).get("ledger") or {}).get("chainID")
            return found["status"] if status_of(found, "Ready") == "True" and chain == mirror.chain_id else None

        first = await told(until("the Allocation is Ready", usable, 60), operator, mesh.agent)
        async with opened(kube, "held") as region:
            await region.write(0, b"of the lost chain")
        node = mirror.allocations[bytes.fromhex(first["allocationID"])].node

        mesh.processes["ledger"].stop()
        shutil.rmtree(mesh.directory / "ledger")
        mesh.processes["ledger"].start()
        lost = first["ledger"]["chainID"]
        await until("another chain", lambda: mirror.chain_id != lost, 60)
        second = await told(until("the Allocation is Ready again", usable, 120), operator, mesh.agent)
        assert second["proxyAddress"] == first["proxyAddress"]
        async with opened(kube, "held") as region:
            assert await region.read(0, 17) == bytes(17), "what a lost chain granted has ended"
        assert node in mirror.nodes
        again = {asset["metadata"]["name"]: asset for asset in await settled(mesh, kube)}
        assert again.keys() == assets.keys()
        for name, asset in again.items():
            assert asset["status"]["address"] == assets[name]["status"]["address"]
            assert bytes.fromhex(asset["status"]["assetID"]) in mirror.assets
        await until("the agent is ready", lambda: ready(AGENT_METRICS)[0] == 200, 60)
        assert mesh.agent.pid == agent

        await kube.delete(ALLOCATIONS, "held", TENANT)

        async def released() -> bool:
            return not await kube.list(ALLOCATIONS, TENANT)

        await told(until("the Allocation is released", released, 60), operator)
    finally:
        operator.stop()


async def told(waiting: Coroutine[Any, Any, Any], *processes: meshes.Process) -> Any:
    """What the waiting gives; with the ends of these logs when it fails."""
    try:
        return await waiting
    except AssertionError as error:
        logs = "\n".join(f"-- {process.name}\n{process.text()[-4000:]}" for process in processes)
        raise AssertionError(f"{error}\n{logs}") from error


async def test_it_ends_in_order_at_sigterm(mesh: Mesh, kube: Kube) -> None:
    await settled(mesh, kube)
    began = time.monotonic()
    assert mesh.agent.stop() == 0
    assert time.monotonic() - began < 10  # the chart's terminationGracePeriodSeconds
    workers = subprocess.run(["pgrep", "-P", str(mesh.agent.pid)], capture_output=True, text=True).stdout  # noqa: ASYNC221
    assert workers == ""
    mesh.agent.start()
    await settled(mesh, kube)


async def test_a_foreign_wrapping_key_stops_the_agent_and_keeps_the_key(mesh: Mesh, kube: Kube) -> None:
    await settled(mesh, kube)
    key = (mesh.directory / "state" / "keys" / "node").read_bytes()
    secret = await kube.get(SECRETS, "hypermesh-agent-kek", NAMESPACE)
    right = secret["data"]["kek"]
    mesh.agent.stop()
    wrong = base64.b64encode(os.urandom(32)).decode()
    await kube.merge_patch(SECRETS, "hypermesh-agent-kek", {"data": {"kek": wrong}}, NAMESPACE)
    mesh.agent.start()
    try:
        assert mesh.agent.running is not None
        status = await asyncio.to_thread(mesh.agent.running.wait, 60)
        assert status == 1
        lines = [json.loads(line) for line in mesh.agent.text().splitlines() if line.startswith("{")]
        told = [line["message"] for line in lines if line["level"] == "critical"]
        assert "restore both secrets" in told[-2]
        assert (mesh.directory / "state" / "keys" / "node").read_bytes() == key
    finally:
        await kube.merge_patch(SECRETS, "hypermesh-agent-kek", {"data": {"kek": right}}, NAMESPACE)
        mesh.agent.start()
    await settled(mesh, kube)
