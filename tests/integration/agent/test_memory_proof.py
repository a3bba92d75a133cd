"""An agent on a chain that asks for memory: filled, shown, registered as far as shown, given up to a tenant, refilled.

A mesh of its own, as the chain's parameters are of its genesis. The tests run in order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import agent_mesh as meshes
import pytest
import pytest_asyncio
from agent_mesh import AGENT_METRICS, PARAMETERS, Mesh, metrics, ready, until

from hypermesh.proofs.memory import shown_bytes
from hypermesh.quantities import parse
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.enforcement import cgroups
from hypermesh_agent.enforcement.cgroups import FILLED
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import ALLOCATIONS
from hypermesh_clients.mirror import Mirror

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the agent needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
TENANT = "default"
SLAB, SLABS, LEASED = 8 << 20, 8, 3
MEMORY = {
    "slabBytes": str(SLAB),
    "blockKib": 256,
    "passes": 4,
    "labels": 64,
    "samples": 64,
    "deadlineMs": "15000",
}
EPOCH_S = 30
ASKED = PARAMETERS | {"epochMs": str(EPOCH_S * 1000), "graceEpochs": "4", "memory": MEMORY}
SHOWN_LIMIT_S = 4 * EPOCH_S
"""Of which a machine that is slow may miss some epochs."""
RSS_LIMIT_KB = 80 * 1024


def shown(slabs: int) -> int:
    params = proofs_pb2.MemoryParameters(slab_bytes=SLAB, block_kib=256, samples=64)
    return shown_bytes(slabs, params)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    directory = tmp_path_factory.mktemp("memory")
    pool = directory / "state" / "pool"
    pool.mkdir(parents=True)
    with meshes.own_network():
        async with meshes.running_mesh(directory, pool, ASKED) as running:
            running.agent.environment["HYPERMESH_MEMORY_PROOF"] = f"{SLABS * SLAB >> 20}Mi"
            running.agent.start()
            try:
                yield running
            except BaseException:
                sys.stderr.write(running.agent.text()[-4000:])
                raise


def filled() -> int:
    return int(metrics(AGENT_METRICS)["hypermesh_agent_memory_filled_bytes"])


def charged() -> int:
    """Bytes that the kernel counts for filled memory."""
    own = Path("/proc/self/cgroup").read_text()
    return cgroups.find(Path("/sys/fs/cgroup"), own).memory.memory_usage(FILLED)


def record(mirror: Mirror) -> ledger_pb2.MemoryRecord | None:
    return next(iter(mirror.memories.values()), None)


async def told(mesh: Mesh, waiting: Any) -> Any:
    try:
        return await waiting
    except AssertionError as error:
        raise AssertionError(f"{error}\n{mesh.agent.text()[-6000:]}") from error


async def ticket(mesh: Mesh, mirror: Mirror, slabs: int, after: int = 0) -> ledger_pb2.MemoryTicket:
    """A ticket of an epoch later than `after` for so many slabs."""

    def won() -> ledger_pb2.MemoryTicket | None:
        held = record(mirror)
        fits = held is not None and held.ticket.epoch > after and held.ticket.filled == slabs * SLAB
        return held.ticket if held is not None and fits else None

    return await told(mesh, until(f"a ticket for {slabs} slabs", won, SHOWN_LIMIT_S))


async def registered(mesh: Mesh, kube: Kube) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        assets = await mesh.assets(kube, "memory")
        for asset in assets:
            conditions = (asset.get("status") or {}).get("conditions") or []
            if any(item["type"] == "Ready" and item["status"] == "True" for item in conditions):
                return asset
        return None

    return dict(await told(mesh, until("the memory is Ready", look, SHOWN_LIMIT_S)))


async def test_free_memory_is_filled_shown_and_registered_as_far_as_it_was_shown(
    mesh: Mesh, kube: Kube, mirror: Mirror
) -> None:
    won = await ticket(mesh, mirror, SLABS)
    assert won.shown == shown(SLABS)
    asset = await registered(mesh, kube)
    assert parse("memory", asset["status"]["capacity"]["memory"]) == shown(SLABS)
    assert filled() == SLABS * SLAB
    assert SLABS * SLAB <= charged() <= cgroups.memory_limit(SLABS * SLAB)
    assert "[+] memory" in (await until("ready", lambda: (r := ready(AGENT_METRICS))[0] == 200 and r, 30))[1]
    with open(f"/proc/{mesh.agent.pid}/status") as file:  # noqa: PTH123, ASYNC230
        lines = dict(line.split(":", 1) for line in file)
    assert int(lines["VmRSS"].split()[0]) <= RSS_LIMIT_KB, "filled memory is not the agent's own"


async def test_a_tenant_takes_of_it_and_what_it_gives_back_is_filled_again(
    mesh: Mesh, kube: Kube, mirror: Mirror
) -> None:
    operator = mesh.processes["operator"]
    operator.start()
    try:
        spec = {"type": "memory", "resources": {"memory": f"{LEASED * SLAB >> 20}Mi"}}
        await kube.create(ALLOCATIONS, {"metadata": {"name": "held", "namespace": TENANT}, "spec": spec})

        async def usable() -> bool:
            found = await kube.get(ALLOCATIONS, "held", TENANT)
            conditions = (found.get("status") or {}).get("conditions") or []
            return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

        try:
            await told(mesh, until("the Allocation is Ready", usable, 60))
        except AssertionError as error:
            raise AssertionError(f"{error}\n-- operator\n{operator.text()[-4000:]}") from error
        assert filled() == (SLABS - LEASED) * SLAB
        held = record(mirror)
        assert held is not None
        less = await ticket(mesh, mirror, SLABS - LEASED, held.ticket.epoch)
        assert less.shown == shown(SLABS - LEASED)
        assert parse("memory", (await registered(mesh, kube))["status"]["capacity"]["memory"]) == shown(SLABS)

        await kube.delete(ALLOCATIONS, "held", TENANT)

        async def released() -> bool:
            return not await kube.list(ALLOCATIONS, TENANT)

        await told(mesh, until("the Allocation is released", released, 60))
        await told(mesh, until("it is filled again", lambda: filled() == SLABS * SLAB, 60))
        await ticket(mesh, mirror, SLABS, less.epoch)
    finally:
        operator.stop()


async def test_killed_it_leaves_nothing_filled_and_goes_on_when_it_is_back(
    mesh: Mesh, kube: Kube, mirror: Mirror
) -> None:
    before = record(mirror)
    assert before is not None
    mesh.agent.kill()
    await until("its memory is free", lambda: charged() < SLAB, 30)
    mesh.agent.start()
    await until("the agent is ready again", lambda: ready(AGENT_METRICS)[0] == 200, 60)
    await told(mesh, until("it is filled again", lambda: filled() == SLABS * SLAB, 60))
    await ticket(mesh, mirror, SLABS, mirror.epoch.number)
    assert parse("memory", (await registered(mesh, kube))["status"]["capacity"]["memory"]) == shown(SLABS)


async def test_a_killed_holder_is_started_again(mesh: Mesh) -> None:
    """As the kernel does first when the machine runs out of memory."""
    (holder,) = holders(mesh.agent.pid)
    os.kill(holder, 9)
    await told(mesh, until("it is told", lambda: "the holder of filled memory ended" in mesh.agent.text(), 30))
    await told(mesh, until("it is filled again", lambda: filled() == SLABS * SLAB, 60))
    assert mesh.agent.running is not None
    assert mesh.agent.running.poll() is None


def holders(agent: int) -> list[int]:
    """Process ids."""
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(each.name) for each in processes if _parent(each) == agent and b"memory.holder" in _command(each)]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
