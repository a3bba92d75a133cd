"""The chain is replaced while the operator is in the middle of something: a submission, a sweep."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import ALLOCATIONS
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_operator import flow, identity, objects
from hypermesh_operator.attempts import Attempts
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.policies import chain
from hypermesh_operator.policies.model import Request
from hypermesh_operator.pool import Flight, Pool
from hypermesh_operator.signing import Signer
from hypermesh_operator.submitting import Submitter

from ...builders import CLUSTER_UID
from ..operator_fixture import LIMIT_S, SYSTEM, TENANT, Mesh
from .conftest import CAPACITY
from .test_new_chain import begin_anew
from .test_steps import successors

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

ALL_OF_IT = {"type": "memory", "resources": {"memory": f"{CAPACITY >> 30}Gi"}}


class Line:
    """What submits, with a mirror that can be made to stand still."""

    def __init__(self, mesh: Mesh, signer: Signer) -> None:
        self._mesh = mesh
        self.client = LedgerClient(mesh.ledger.target, mesh.ledger.ca_pem)
        self.mirror = Mirror(self.client)
        self.submitter = Submitter(self.client, self.mirror, signer)
        self.pool = Pool(self.mirror)
        self.attempts = Attempts(self.pool, self.submitter, self.mirror, CLUSTER_UID, lambda: None)

    @contextlib.asynccontextmanager
    async def mirroring(self) -> AsyncIterator[None]:
        """The mirror follows the present chain, in the body."""
        following = asyncio.create_task(self.mirror.run())
        try:
            await self.mirror.wait_until(lambda: self.mirror.chain_id == self._mesh.ledger.chain_id, LIMIT_S)
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def depart(self, allocation: Allocation) -> Flight:
        """A submission whose outcome nobody heard, and never will."""
        choice = self.pool.choose(Request(allocation.spec, allocation.namespace, CLUSTER_UID))
        assert isinstance(choice, chain.Choice)
        flight = self.submitter.prepare(allocation, choice.offer.candidate, 0)
        self.pool.depart(flight)
        return flight


@pytest_asyncio.fixture(name="line", loop_scope="module")
async def a_line(mesh: Mesh) -> AsyncIterator[Line]:
    async with Kube.from_kubeconfig(await mesh.operator_kubeconfig()) as kube:
        signer = Signer(await identity.load(kube, SYSTEM))
    signing = asyncio.create_task(signer.run())
    line = Line(mesh, signer)
    try:
        yield line
    finally:
        signing.cancel()
        await asyncio.gather(signing, return_exceptions=True)
        await line.client.close()


async def furnish(mesh: Mesh) -> None:
    """The new chain gets the tickets and the asset of the old one."""
    await mesh.prove("node-1")
    if "node-1-mem-0" not in {record.registration.name for record in mesh.ledger.mirror.assets.values()}:
        await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-0", CAPACITY)


async def applied(mesh: Mesh, name: str) -> Allocation:
    return objects.allocation(await mesh.apply(name, ALL_OF_IT), CLUSTER_UID)


@pytest.mark.parametrize("committed", [False, True])
async def test_what_was_under_way_to_a_chain_that_is_gone_takes_nothing(
    mesh: Mesh, line: Line, committed: bool
) -> None:
    allocation = await applied(mesh, f"under-way-{committed}".lower())
    async with line.mirroring():
        flight = line.depart(allocation)
        await line.submitter.sign(flight)
        flight.committed = committed
        await begin_anew(mesh)
        await furnish(mesh)
        await line.mirror.wait_until(lambda: line.mirror.chain_id == mesh.ledger.chain_id, LIMIT_S)
        await line.mirror.wait_until(lambda: len(line.mirror.assets) == len(mesh.ledger.mirror.assets), LIMIT_S)
        assert line.attempts.state(allocation.allocation_id) is flow.FlightState.NONE
        assert await line.attempts.obtain(allocation) is None, "all of the asset is free again"


async def test_an_operation_for_the_former_chain_is_built_anew_soon(mesh: Mesh, line: Line) -> None:
    allocation = await applied(mesh, "behind")
    async with line.mirroring():
        pass
    await begin_anew(mesh)
    await furnish(mesh)
    verdict = await line.attempts.obtain(allocation)  # the mirror has not heard of it
    assert verdict is not None
    assert verdict.reason == Reason.WrongChain.value
    assert verdict.retry_s is not None
    assert verdict.retry_s <= 5.0
    async with line.mirroring():
        await line.mirror.wait_until(lambda: len(line.mirror.assets) == len(mesh.ledger.mirror.assets), LIMIT_S)
        assert await line.attempts.obtain(allocation) is None


async def test_a_sweep_releases_nothing_of_a_chain_that_is_gone(mesh: Mesh) -> None:
    async with successors(mesh) as supply:
        await mesh.apply("orphan", ALL_OF_IT)
        first = supply.pop()
        async with asyncio.timeout(LIMIT_S):
            while not mesh.active():
                await first.turn("orphan")
                await asyncio.sleep(0.05)
        await mesh.kube.merge_patch(ALLOCATIONS, "orphan", {"metadata": {"finalizers": []}}, TENANT)
        await mesh.delete("orphan")
        await mesh.until_gone("orphan")
        sweep = supply.pop().sweep
        asked, mirror = sweep._exists, sweep._mirror

        async def replaced_meanwhile(grant: Grant) -> bool:
            await begin_anew(mesh)
            await mirror.wait_until(lambda: mirror.chain_id == mesh.ledger.chain_id, LIMIT_S)
            return await asked(grant)

        sweep._exists = replaced_meanwhile  # type: ignore[method-assign]
        assert await sweep.once() == 0
        await furnish(mesh)


async def test_trouble_in_one_sweep_does_not_keep_the_next(mesh: Mesh) -> None:
    async with successors(mesh) as supply:
        sweep = supply.pop().sweep
        swept, twice = 0, asyncio.Event()

        async def troubled() -> int:
            nonlocal swept
            swept += 1
            if swept == 2:
                twice.set()
            raise KeyError("what nobody thought of")

        sweep.once = troubled  # type: ignore[method-assign]
        running = asyncio.create_task(sweep.run(0.01))
        async with asyncio.timeout(LIMIT_S):
            await twice.wait()
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
