"""One key fills its whole share of the pool; what that costs everybody else, counted in blocks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from hypermesh import operations
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import Commit, LedgerClient, LedgerUnavailable

from ...builders import Member, allocation
from ..ledger_fixture import Settled, patient, running_ledger, settle
from . import small_blocks

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOOD = 1_500
"""More than an operator's share."""
MODEST = 5
IN_BLOCKS = 3
"""One that is agreed on while the operation is sent, one while it is checked, and its own."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settled]:
    program, params = (sys.executable, "-P", small_blocks.__file__), patient()
    params.work_samples = 8  # a proof has to fit into a block
    async with running_ledger(tmp_path_factory.mktemp("flood"), params, program=program) as ledger:
        yield await settle(ledger, 1 << 20)


def batch(settled: Settled, signer: Member, name: str, count: int) -> list[bytes]:
    """Signed Allocates, as an operator that has many to submit signs them."""
    asked = [allocation(settled.node, settled.cpu, f"{name}-{index}", 1) for index in range(count)]
    todo = [(settled.ledger.operation(allocate=each), settled.refs(signer)) for each in asked]
    keys, signed = signer.keypair, []
    for first in range(0, count, 500):
        signed += operations.build_batch(todo[first : first + 500], keys.public, keys.secret)
    return signed


async def waiting(settled: Settled) -> dict[str, float]:
    """The ledger's metrics of its pool."""
    address = f"http://[::1]:{settled.ledger.metrics_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(address) as reply:
        lines = (await reply.text()).splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("hypermesh_ledger_pool")}


async def admitted(settled: Settled, flood: list[asyncio.Task[Commit]]) -> bool:
    """Whether all of the flood is in the pool, or out of it again."""
    status = await settled.ledger.client.status(timeout=30)
    return status.mempool + sum(task.done() for task in flood) >= len(flood)


async def submitted(settled: Settled, envelope: bytes) -> tuple[int, int]:
    """The height before, and the height of the commit."""
    before = (await settled.ledger.client.status(timeout=30)).height
    return before, (await settled.ledger.client.submit(envelope, timeout=60)).height


async def test_a_flood_delays_others_by_their_fair_part(settled: Settled) -> None:
    ledger = settled.ledger
    modest = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator-2")
    greedy = batch(settled, settled.operator, "flood", FLOOD)
    others = batch(settled, modest, "modest", MODEST)
    clients = [LedgerClient(ledger.target, ledger.ca_pem) for _ in range(2)]
    flood = [asyncio.create_task(clients[index % 2].submit(each, timeout=100)) for index, each in enumerate(greedy)]
    try:
        async with asyncio.timeout(60):
            # what others wait for from then on is their turn
            while not await admitted(settled, flood):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        taken = [await submitted(settled, each) for each in others]
        release = ledger_pb2.Release(allocation_id=operations.decode(others[0]).operation.allocate.allocation_id)
        first = await submitted(settled, ledger.envelope(modest, settled.refs(modest), release=release))
        still = (await ledger.client.status(timeout=30)).mempool
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
    finally:
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in clients))
    delays = [committed - before for before, committed in (*taken, first)]
    heights = sorted(each.height for each in outcomes if isinstance(each, Commit))
    turned_away = [each for each in outcomes if isinstance(each, LedgerUnavailable)]
    print(f"modest: {delays} blocks; flood: {len(heights)} in {heights[-1] - heights[0]} blocks; {still} still waited")
    assert len(heights) + len(turned_away) == FLOOD  # nobody is left without an answer
    assert still  # the flood waited all the time, so first come, first served would have had them wait
    behind = sum(height > taken[0][1] for height in heights)
    assert behind > 100
    assert max(delays) <= IN_BLOCKS


async def test_the_pool_is_empty_afterwards_and_says_so(settled: Settled) -> None:
    found = await waiting(settled)
    assert found['hypermesh_ledger_pool{class="first"}'] == 0
    assert found['hypermesh_ledger_pool{class="ordinary"}'] == 0
    assert found["hypermesh_ledger_pool_bytes"] == 0
