"""The forgeries of tests/adversary through the real ledger: TLS, gRPC, admission, signature threads.

FORGERIES limits how many. What is proven (CommitWork, Prove) is forged in tests/unit/adversary, with proofs at hand.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import pytest

from hypermesh import operations
from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2

from ...adversary.forgeries import forgeries
from ...adversary.scenes import Forgery, Original, Scene, sign
from ...builders import allocation, member, registration
from ..ledger_fixture import START_S, Settled

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_CLUSTER = "6a1f0c52-0000-4000-8000-000000000002"
AT_ONCE = 64


async def scene_of(settled: Settled) -> Scene:
    """Originals that the running ledger would take now; none of them is sent yet."""
    ledger, node, cpu = settled.ledger, settled.node, settled.cpu
    memory = ledger_pb2.ASSET_TYPE_MEMORY
    spare = await ledger.register(node, registration(node, memory, "mem-1", 7, work_device=cpu.asset_id))
    stranger = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "other-operator", cluster=2, cluster_uid=OTHER_CLUSTER)
    validator = await ledger.enrol(trust_pb2.ROLE_VALIDATOR, "ledger-9")
    second = await ledger.enrol(trust_pb2.ROLE_NODE, "node-2")
    await ledger.client.submit(settled.allocate("held"), timeout=30)
    held = operations.allocation_id(settled.operator.body.cluster_uid, "held")
    await ledger.mirror.wait_until(lambda: held in ledger.mirror.allocations, START_S)
    until = time.time_ns() // 1_000_000 + 86_400_000
    given = ledger_pb2.Delegate(delegate=second.key_id, rights=[2], until_ms=until)
    for owner in (node, settled.operator):
        await ledger.submit(owner, delegate=given)
    more = ledger_pb2.Delegate(delegate=second.key_id, rights=[1, 2], until_ms=until, revision=1)
    newcomer = member(ledger.root, trust_pb2.ROLE_NODE, "node-3")
    epoch = ledger.mirror.epoch.number
    work = proofs_pb2.WorkCommitment(device=second.asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0"), root=b"r" * 32)
    update = ledger_pb2.UpdateAsset(asset_id=cpu.asset_id, revision=1, capacity=90, sharing=cpu.sharing)
    added = registration(node, memory, "mem-0", 1 << 30, work_device=cpu.asset_id)
    own, refs = settled.refs(node), settled.refs()

    def operation(**kind: object) -> ledger_pb2.Operation:
        return ledger.operation(**kind)

    return Scene(
        originals=[
            Original(newcomer, operation(enrol_node={"certificate": newcomer.certificate})),
            Original(second, operation(commit_work={"epoch": epoch, "commitments": [work]})),
            Original(node, operation(register_asset=added), own),
            Original(node, operation(update_asset=update), own),
            Original(node, operation(retire_asset={"asset_id": spare.asset_id, "revision": 1}), own),
            Original(settled.operator, operation(allocate=allocation(node, cpu, "asked", 5)), refs),
            Original(settled.operator, operation(release={"allocation_id": held}), refs),
            Original(node, operation(delegate=more)),
            Original(settled.operator, operation(revoke={"delegate": second.key_id, "revision": 1})),
        ],
        others={
            "operator of another cluster": stranger,
            "validator": validator,
            "nobody": member(ledger.root, trust_pb2.ROLE_NODE, "node-6"),
        },
        foreign={
            "stake": [stake_ticket_hash(stranger.key_id, stranger.body.role, stranger.certificate, epoch)],
        },
        stale={},
    )


async def test_the_running_ledger_refuses_forgeries_and_still_takes_what_is_right(settled: Settled) -> None:
    seed = int(os.environ.get("FORGERY_SEED") or random.randrange(1 << 32))
    chance, ledger = random.Random(seed), settled.ledger
    scene = await scene_of(settled)
    found = forgeries(scene, chance)
    share = chance.sample(found, min(len(found), int(os.environ.get("FORGERIES") or len(found))))
    before = ledger.pids()
    turn = asyncio.Semaphore(AT_ONCE)

    async def answer(forgery: Forgery) -> str | None:
        """What is wrong about the ledger's answer."""
        async with turn:
            try:
                commit = await ledger.client.submit(forgery.tx, timeout=60)
            except Refused as refusal:
                return None if refusal.reason in forgery.reasons and refusal.message else f"{forgery.name}: {refusal}"
            return f"{forgery.name}: accepted at {commit.height}: {forgery.tx.hex()}"

    started = time.monotonic()
    wrong = [each for each in await asyncio.gather(*map(answer, share)) if each is not None]
    print(f"FORGERY_SEED={seed}: {len(share)} of {len(found)} in {time.monotonic() - started:.1f} s")
    assert not wrong, f"{len(wrong)} of {len(share)}:\n" + "\n".join(each[:400] for each in wrong[:20])
    assert ledger.pids() == before, "a process was replaced"
    assert settled.reserved == 1
    for original in scene.originals:
        tx = operations.canonical(sign(original.signer, operations.canonical(original.operation), original.refs))
        await ledger.client.submit(tx, timeout=30)
    with pytest.raises(Refused) as refusal:
        await ledger.client.submit(settled.allocate("held"), timeout=30)
    assert refusal.value.reason is Reason.AllocationEnded
