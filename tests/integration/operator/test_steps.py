"""Killed between every two steps, and in the middle of each: a successor with an empty memory converges all the same.

The reconciler's parts are built in this process, under the operator's own service account, so that a turn can be ended
after any number of steps, or cancelled at any moment, and all of its memory thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypermesh.conditions import is_true
from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS, PROXY_MAPPINGS, SECRETS
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_operator import identity
from hypermesh_operator.announcing import Announcer
from hypermesh_operator.attempts import Attempts
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.pool import Pool
from hypermesh_operator.publishing import Publisher
from hypermesh_operator.reconciler import Reconciler, Tools
from hypermesh_operator.signing import Signer
from hypermesh_operator.submitting import Submitter
from hypermesh_operator.sweep import Sweep

from ...builders import CLUSTER_UID
from ..operator_fixture import SYSTEM, TENANT, Mesh, report_programmed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}


class Successor:
    """A reconciler that knows only what the API server and the ledger tell it."""

    def __init__(self, mesh: Mesh, kube: Kube, mirror: Mirror, submitter: Submitter) -> None:
        self._mesh, self._kube = mesh, kube
        self._inventory = Inventory(CLUSTER_UID)
        pool, announcer = Pool(mirror), Announcer(kube, "test")
        self.reconciler = Reconciler(
            Tools(
                kube=kube,
                mirror=mirror,
                pool=pool,
                attempts=Attempts(pool, submitter, mirror, CLUSTER_UID, lambda: None),
                submitter=submitter,
                publisher=Publisher(kube, self._inventory, submitter.keys, mesh.ledger.ca_pem, announcer),
                announcer=announcer,
                inventory=self._inventory,
                release_timeout_s=60.0,
            )
        )
        self.sweep = Sweep(kube, mirror, self._inventory, submitter, self.reconciler)

    async def turn(self, name: str, limit: int = 32) -> int:
        """One turn for that Allocation, of at most so many steps; 0 when there is nothing to do, or nothing left."""
        try:
            body = await self._kube.get(ALLOCATIONS, name, TENANT)
        except NotFound:
            return 0
        with contextlib.suppress(NotFound):
            self._inventory.see_mapping(await self._kube.get(PROXY_MAPPINGS, name, TENANT))
        self._inventory.see(body)
        return await self.reconciler.turn(str(body["metadata"]["uid"]), limit)


@contextlib.asynccontextmanager
async def successors(mesh: Mesh) -> AsyncIterator[list[Successor]]:
    """An endless supply: `pop` gives one that remembers nothing."""
    config: Path = await mesh.operator_kubeconfig()
    async with Kube.from_kubeconfig(config) as kube:
        signer = Signer(await identity.load(kube, SYSTEM))
        client = LedgerClient(mesh.ledger.target, mesh.ledger.ca_pem)
        mirror = Mirror(client)
        running = [asyncio.create_task(mirror.run()), asyncio.create_task(signer.run())]
        await mirror.synced.wait()
        submitter = Submitter(client, mirror, signer)

        class Supply(list[Successor]):
            def pop(self, index: int = -1) -> Successor:  # type: ignore[override]
                return Successor(mesh, kube, mirror, submitter)

        try:
            yield Supply()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await client.close()


async def settled(mesh: Mesh, name: str) -> bool:
    """Whether all is there exactly once."""
    body = await mesh.kube.get(ALLOCATIONS, name, TENANT)
    conditions = (body.get("status") or {}).get("conditions") or ()
    return is_true(conditions, "Reserved") and len(mesh.active()) == 1


async def test_a_new_process_for_every_single_step(mesh: Mesh) -> None:
    async with successors(mesh) as supply:
        await mesh.apply("steps", ONE_GI)
        await mesh.kube.merge_patch(ALLOCATIONS, "steps", {"metadata": {"finalizers": []}}, TENANT)  # as before 1.36
        for _ in range(40):
            await supply.pop().turn("steps", limit=1)
            if await settled(mesh, "steps"):
                break
            await asyncio.sleep(0.05)  # a record is on its way
        assert await settled(mesh, "steps")
        await mesh.kube.get(SECRETS, "steps-access", TENANT)
        mapping = await mesh.kube.get(PROXY_MAPPINGS, "steps", TENANT)
        async with await mesh.agent() as agent:
            await report_programmed(agent, mapping)
        for _ in range(5):
            await supply.pop().turn("steps", limit=1)
        assert is_true((await mesh.status("steps"))["conditions"], "Ready")
        await mesh.delete("steps")
        for _ in range(40):
            if await supply.pop().turn("steps", limit=1) == 0:
                break
        await mesh.until_gone("steps")
        await mesh.ledger.mirror.wait_until(lambda: not mesh.active(), 10)


@pytest.mark.parametrize("milliseconds", [1, 2, 4, 6, 8, 11, 15, 20, 30, 45, 70, 100])
async def test_cancelled_in_the_middle_of_whatever_it_does(mesh: Mesh, milliseconds: int) -> None:
    name = f"cut-{milliseconds}"
    async with successors(mesh) as supply:
        await mesh.apply(name, ONE_GI)
        for _ in range(3):
            turn = asyncio.create_task(supply.pop().turn(name))
            await asyncio.sleep(milliseconds / 1000)
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
        for _ in range(100):
            await supply.pop().turn(name)
            if await settled(mesh, name):
                break
            await asyncio.sleep(0.05)
        assert await settled(mesh, name)
        await mesh.delete(name)
        turn = asyncio.create_task(supply.pop().turn(name))
        await asyncio.sleep(milliseconds / 1000)
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
        for _ in range(40):
            if await supply.pop().turn(name) == 0:
                break
        await mesh.until_gone(name)
        await mesh.ledger.mirror.wait_until(lambda: not mesh.active(), 10)


async def test_two_at_once_reserve_once(mesh: Mesh) -> None:
    """As when a lost lease is noticed late: the ledger's allocation id decides, both agree afterwards."""
    async with successors(mesh) as supply:
        await mesh.apply("rivals", ONE_GI)
        for _ in range(20):
            await asyncio.gather(*(supply.pop().turn("rivals") for _ in range(4)), return_exceptions=True)
            if await settled(mesh, "rivals"):
                break
            await asyncio.sleep(0.05)
        assert await settled(mesh, "rivals")
        asset = mesh.registered("node-1-mem-0")
        assert mesh.reserved(asset) == 1 << 30


async def test_what_vanished_in_a_gap_of_the_watch_is_forgotten_and_released(mesh: Mesh) -> None:
    """This successor has no watch: as far as it knows, the Allocation still is."""
    async with successors(mesh) as supply:
        successor = supply.pop()
        await mesh.apply("ghost", ONE_GI)
        await mesh.apply("alive", ONE_GI)
        for name in ("ghost", "alive"):
            for _ in range(100):
                await successor.turn(name)
                if is_true((await mesh.status(name)).get("conditions") or (), "Reserved"):
                    break
                await asyncio.sleep(0.05)
        assert len(mesh.active()) == 2
        assert await successor.sweep.once() == 0
        await mesh.kube.merge_patch(ALLOCATIONS, "ghost", {"metadata": {"finalizers": []}}, TENANT)
        await mesh.delete("ghost")
        await mesh.until_gone("ghost")
        assert await successor.sweep.once() == 1
        await mesh.ledger.mirror.wait_until(lambda: len(mesh.active()) == 1, 10)
        assert await successor.sweep.once() == 0
