"""One mesh for the module's tests; each test uses names of its own and leaves no Allocation behind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import KubeError
from hypermesh_clients.kube_resources import ALLOCATIONS

from ..operator_fixture import TENANT, Mesh, running_mesh

CAPACITY = 64 << 30


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """node-1 with 64 GiB of memory to allocate; no operator runs yet."""
    async with running_mesh(tmp_path_factory.mktemp("mesh")) as running:
        await running.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-0", CAPACITY)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tidy(mesh: Mesh) -> AsyncIterator[None]:
    """After the test no Allocation and no reservation is left."""
    yield
    for item in await mesh.kube.list(ALLOCATIONS, TENANT):
        name = item["metadata"]["name"]
        with contextlib.suppress(KubeError):
            await mesh.kube.delete(ALLOCATIONS, name, TENANT)
            await mesh.kube.merge_patch(ALLOCATIONS, name, {"metadata": {"finalizers": []}}, TENANT)
    await mesh.release_all()
    await mesh.give_up_lease()
