"""From a real ledger's commit to bytes at the address: nothing between them is fed by hand."""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import pytest
import pytest_asyncio
from namespaces import Wire
from node_under_test import Node, running, until
from proxy_world import Member, Signed, World

from hypermesh import addressing
from hypermesh.v1 import ledger_pb2
from hypermesh_agent.proxy import removal
from hypermesh_agent.proxy.verification import Standpoint

from ...builders import allocation, registration
from ..ledger_fixture import Settled, patient, running_ledger, settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
TOKEN = "a token"


@dataclass
class Real:
    """A settled ledger with a memory asset, and the node that serves it."""

    settled: Settled
    memory: ledger_pb2.RegisterAsset
    node: Node

    async def allocate(self, uid: str, lease_seconds: int = 3600) -> Signed:
        """Submitted by the operator, committed; with what the tenant holds."""
        asked = allocation(self.settled.node, self.memory, uid, MIB, lease_seconds=lease_seconds)
        asked.capability_hash = hashlib.sha256(TOKEN.encode()).digest()
        ledger = self.settled.ledger
        refs = ledger.mirror.ticket_refs(
            self.settled.node.key_id, self.memory.work_device, self.settled.operator.key_id
        )
        await ledger.submit(self.settled.operator, refs, allocate=asked)
        record = await ledger.client.get_allocation(asked.allocation_id)
        assert record is not None
        return Signed(record, TOKEN)

    async def release(self, signed: Signed) -> None:
        ledger, operator = self.settled.ledger, self.settled.operator
        refs = ledger.mirror.ticket_refs(self.settled.node.key_id, self.memory.work_device, operator.key_id)
        gone = ledger_pb2.Release(allocation_id=signed.record.allocation_id)
        await ledger.submit(operator, refs, release=gone)


def world_of(settled: Settled) -> World:
    """The same ledger as the node's harness knows it."""
    mirror, body = settled.ledger.mirror, settled.node.body
    here = Standpoint(
        chain_id=mirror.chain_id,
        key_id=settled.node.key_id,
        prefix=addressing.node_prefix(body.federation, body.cluster, settled.node.key_id, body.node_counter),
        federation=body.federation,
        cluster=body.cluster,
        counter=body.node_counter,
        cluster_uid=body.cluster_uid,
        root_public=settled.ledger.root.keypair.public,
    )
    node = Member(settled.node.keypair, mirror.nodes[settled.node.key_id])
    operator = Member(settled.operator.keypair, mirror.nodes[settled.operator.key_id])
    return World(settled.ledger.root.keypair, node, operator, here, {}, {}, {})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(wire: Wire, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient()) as ledger:
        settled = await settle(ledger, 100)
        memory = registration(
            settled.node, ledger_pb2.ASSET_TYPE_MEMORY, "numa-0", 1 << 30, work_device=settled.cpu.work_device
        )
        await ledger.register(settled.node, memory)
        directory = tmp_path_factory.mktemp("node")
        async with running(world_of(settled), wire, kubeconfig, directory, ledger.mirror) as node:
            await node.start()
            yield Real(settled, memory, node)
            await node.stop()
            assert removal.remove(node.config) == []


async def test_commit_to_programmed_to_bytes(real: Real) -> None:
    took = []
    for number in range(20):
        begin = time.monotonic()
        signed = await real.allocate(f"first-{number}")
        await real.node.announce(signed, f"first-{number}")
        await real.node.condition(f"first-{number}", "True")
        took.append(time.monotonic() - begin)
    print(f"submit to Programmed=True: p50 {statistics.median(took):.3f} s, max {max(took):.3f} s", file=sys.stderr)
    said = await real.node.use(signed, "await client.write(7, b'proven'); print(await client.read(6, 8))")
    assert said == repr(b"\0proven\0")
    await real.release(signed)
    await real.node.condition("first-19", "False")
    assert (await real.node.use(signed, "await client.describe()")).startswith("Unreachable |")


async def test_an_expired_lease_is_taken_down_by_the_ledgers_own_clock(real: Real) -> None:
    signed = await real.allocate("short", lease_seconds=6)  # longer than programming takes, also on a busy machine
    await real.node.announce(signed, "short")
    await real.node.condition("short", "True")
    status = await real.node.condition("short", "False")
    assert status["conditions"][0]["reason"] == "AllocationEnded"
    region = real.node.config.state / "memory" / signed.record.allocation_id.hex()

    async def gone() -> bool:
        return not region.exists()

    await until(gone, "the region to go")


async def test_kill_9_of_the_ledger_leaves_the_addresses_working(real: Real) -> None:
    signed = await real.allocate("outlives")
    await real.node.announce(signed, "outlives")
    await real.node.condition("outlives", "True")
    await real.settled.ledger.stop()
    assert await real.node.use(signed, "print((await client.describe()).size)") == str(MIB)
    await real.settled.ledger.start()
    await real.settled.ledger.mirror.wait_until(lambda: real.settled.ledger.mirror.age() < 2, 60)
    again = await real.allocate("after")
    await real.node.announce(again, "after")
    await real.node.condition("after", "True")
    assert await real.node.use(again, "print((await client.describe()).address)") == str(
        IPv6Address(again.operation.address)
    )
