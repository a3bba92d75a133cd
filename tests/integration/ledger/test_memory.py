"""A running ledger that asks for memory: a filled one is committed in time, proven, and reserved as far as shown.

The deadline is generous, as the machine may be slow; what it refuses is tried in tests/unit/ledger/test_memory.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hypermesh.proofs import challenge
from hypermesh.proofs.challenges import memory_owner
from hypermesh.proofs.parameters import DEMO, MEMORY_DEMO
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2

from ...adversary.memories import Claim, block
from ...builders import Member, allocation, registration
from ..ledger_fixture import Ledger, running_ledger

SLABS, SLAB = 16, 1 << 20
SHOWN = SLABS * SLAB // 1000 * 805
LIMIT_S = 60


def parameters() -> proofs_pb2.ProofParameters:
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.epoch_ms, params.grace_epochs = 30_000, 20
    params.memory.CopyFrom(MEMORY_DEMO)
    params.memory.slab_bytes = SLAB
    return params


async def shown(ledger: Ledger, node: Member, asset: bytes) -> ledger_pb2.MemoryRecord:
    """The record with a ticket; an epoch that is too far gone is let pass."""
    params, key = ledger.mirror.parameters.memory, (node.key_id, asset)
    owner = memory_owner(ledger.chain_id, node.key_id)
    for number in range(SLABS * SLAB // (params.block_kib * 1024)):
        block(owner, asset, number, params)  # filled before anything is asked
    for _ in range(4):
        epoch = ledger.mirror.epoch.number
        await ledger.mirror.wait_until(lambda epoch=epoch: ledger.mirror.epoch.number > epoch, LIMIT_S)  # type: ignore[misc]
        now = ledger.mirror.epoch
        c = challenge(ledger.chain_id, now.beacon, node.key_id, now.number)
        claim = Claim(owner, asset, c, SLABS, params, lambda each: block(owner, asset, each, params))
        commitment = ledger_pb2.CommitMemory(epoch=now.number, commitment=claim.commitment, hardware_id="ram")
        try:
            await ledger.submit(node, commit_memory=commitment)
        except Refused as refusal:
            if refusal.reason not in (Reason.MemoryLate, Reason.EpochWrong):
                raise
            continue
        await ledger.mirror.wait_until(lambda: key in ledger.mirror.memories, LIMIT_S)
        await ledger.mirror.wait_until(
            lambda: bool(ledger.mirror.memories[key].seed or ledger.mirror.memories[key].late), LIMIT_S
        )
        if ledger.mirror.memories[key].late:
            continue
        proof = claim.proof(ledger.mirror.memories[key].seed)
        await ledger.submit(node, prove_memory=ledger_pb2.ProveMemory(epoch=now.number, proof=proof))
        await ledger.mirror.wait_until(lambda: ledger.mirror.memories[key].HasField("ticket"), LIMIT_S)
        return ledger.mirror.memories[key]
    raise AssertionError("four epochs passed before the memory was shown")


async def test_no_more_memory_is_reserved_than_a_running_ledger_was_shown(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, parameters()) as ledger:
        operator = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
        node = await ledger.enrol(trust_pb2.ROLE_NODE, "node-1")
        cpu = node.asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0")
        await ledger.win_tickets(node, [cpu])
        ram = registration(node, ledger_pb2.ASSET_TYPE_MEMORY, "ram", SHOWN, work_device=cpu)
        with pytest.raises(Refused, match="MemoryTicketMissing"):
            await ledger.register(node, ram)
        ticket = (await shown(ledger, node, ram.asset_id)).ticket
        assert (ticket.filled, ticket.shown) == (SLABS * SLAB, SHOWN)
        inflated = ledger_pb2.RegisterAsset.FromString(ram.SerializeToString())
        inflated.capacity += 1
        with pytest.raises(Refused, match="MemoryNotShown"):
            await ledger.register(node, inflated)
        await ledger.register(node, ram)

        async def reserve(uid: str) -> None:
            refs = ledger.mirror.ticket_refs(node.key_id, cpu, operator.key_id)
            await ledger.submit(operator, refs, allocate=allocation(node, ram, uid, SHOWN))

        await reserve("a")
        refs = ledger.mirror.ticket_refs(node.key_id, cpu, operator.key_id)
        released = ledger_pb2.Release(allocation_id=allocation(node, ram, "a", SHOWN).allocation_id)
        await ledger.submit(operator, refs, release=released)
        key = node.key_id, ram.asset_id
        if ledger.mirror.memories[key].ticket.epoch == ticket.epoch:
            with pytest.raises(Refused, match="MemoryNotShown"):
                await reserve("b")
