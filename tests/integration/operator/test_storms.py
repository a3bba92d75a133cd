"""Many at once: all end Ready or with a stated refusal, none is lost, nothing is over-reserved, few are refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from hypermesh.conditions import find
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube_resources import ALLOCATIONS

from ...processes import Started
from ..operator_fixture import TENANT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

LIMIT_S = 240.0


async def ready_reasons(mesh: Mesh) -> Counter[str]:
    """How many Allocations stand where."""
    return Counter(_reason(item) for item in await mesh.kube.list(ALLOCATIONS, TENANT))


def _reason(item: Any) -> str:
    condition = find((item.get("status") or {}).get("conditions") or (), "Ready")
    return str(condition["reason"]) if condition else ""


async def until(mesh: Mesh, **expected: int) -> None:
    """Returns when exactly so many stand at each reason."""
    found = await ready_reasons(mesh)
    try:
        async with asyncio.timeout(LIMIT_S):
            while found != Counter(expected):
                await asyncio.sleep(0.2)
                found = await ready_reasons(mesh)
    except TimeoutError:
        raise AssertionError(f"expected {expected}, found {dict(found)}") from None


def refusals(operator: Started) -> float:
    """How often the ledger refused this operator."""
    lines = operator.probe("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("hypermesh_operator_refusals_total{"))


async def test_more_than_fits_at_once(mesh: Mesh) -> None:
    """100 ask for 1 GiB each of two assets that hold 64 and 16: 80 get it."""
    small = await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "small", 16 << 30)
    async with mesh.operator() as operator, mesh.reporting():
        spec = {"type": "memory", "resources": {"memory": "1Gi"}}
        await asyncio.gather(*(mesh.apply(f"a{number}", spec) for number in range(100)))
        await until(mesh, Usable=80, NoAssetFits=20)
        assert sum(record.reserved for record in mesh.ledger.mirror.assets.values()) == 80 << 30
        assert mesh.reserved(small) == 16 << 30
        assert len(mesh.active()) == 80
        assert refusals(operator) <= 2, "the operator foresees what the ledger would refuse"
        granted = [item for item in await mesh.kube.list(ALLOCATIONS, TENANT) if _reason(item) == "Usable"]
        assert len({item["status"]["proxyAddress"] for item in granted}) == 80
        await asyncio.gather(*(mesh.delete(item["metadata"]["name"]) for item in granted[:40]))
        await until(mesh, Usable=60)
        await asyncio.gather(
            *(mesh.delete(item["metadata"]["name"]) for item in await mesh.kube.list(ALLOCATIONS, TENANT))
        )
        await until(mesh)
        assert mesh.active() == []
    await mesh.retire("node-1", small)


async def test_kill_minus_nine_at_any_moment(mesh: Mesh) -> None:
    """Five kills under a load of 60: no Allocation is lost, none is reserved twice."""
    async with mesh.reporting():
        operator = await mesh.spawn()
        await mesh.until_leads(operator)
        spec = {"type": "memory", "resources": {"memory": "1Gi"}}
        applying = asyncio.gather(*(mesh.apply(f"k{number}", spec) for number in range(60)))
        for pause in (0.05, 0.3, 0.6, 1.0, 1.5):
            await asyncio.sleep(pause)
            operator.kill()
            await mesh.give_up_lease()
            operator = await mesh.spawn()
            await mesh.until_leads(operator)
        await applying
        await until(mesh, Usable=60)
        assert len(mesh.active()) == 60
        assert sum(record.reserved for record in mesh.ledger.mirror.assets.values()) == 60 << 30
        await asyncio.gather(*(mesh.delete(f"k{number}") for number in range(60)))
        await asyncio.sleep(0.2)
        operator.kill()
        await mesh.give_up_lease()
        operator = await mesh.spawn()
        await until(mesh)
        await mesh.ledger.mirror.wait_until(lambda: not mesh.active(), LIMIT_S)
        assert operator.stop() == 0
