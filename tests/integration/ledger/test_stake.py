"""Stake on a running ledger: who proves rises, who is silent falls and is refused, and what a delegate may do.

One ledger with short epochs: real proofs, real blocks. Nothing is timed; every wait is for a state of the ledger.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hypermesh import operations
from hypermesh.proofs import parameters
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_agent import delegating
from hypermesh_agent.delegating import Desk
from hypermesh_agent.submitting import Submitter

from ...builders import Member
from ..ledger_fixture import Ledger, Settled, patient, running_ledger, settle

LIMIT_S = 300.0
OTHER_CLUSTER = "6a1f0c52-0000-4000-8000-000000000002"


def quick() -> proofs_pb2.ProofParameters:
    """Epochs of some seconds with proofs of milliseconds; tickets that stay good, as only scores are looked at."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(parameters.DEMO)
    params.epoch_ms, params.grace_epochs = 15_000, 1_000
    params.work_n, params.work_tile, params.work_rounds, params.work_samples = 64, 8, 3, 12
    params.vdf_iterations = 1_000
    return params


def score(ledger: Ledger, node: Member) -> int:
    """As every client reads it."""
    return ledger.mirror.nodes[node.key_id].trust_score


async def prove_until(settled: Settled, shown: int) -> int:
    """Prove epoch after epoch until the node's score is above `shown`; the number of epochs proven."""
    ledger, epochs = settled.ledger, 0
    async with asyncio.timeout(LIMIT_S):
        while score(ledger, settled.node) <= shown:
            epoch = ledger.mirror.epoch.number
            await ledger.mirror.wait_until(lambda epoch=epoch: ledger.mirror.epoch.number > epoch, LIMIT_S)  # type: ignore[misc]
            try:
                await ledger.win_tickets(settled.node, [settled.cpu.asset_id])
            except AssertionError:
                continue  # a machine so slow that the epochs passed: the next ones count
            epochs += 1
    return epochs


async def test_who_proves_rises_and_the_silent_falls_and_is_refused(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, quick()) as ledger:
        settled = await settle(ledger, 100)
        first = ledger.mirror.genesis.initial_trust_score
        assert score(ledger, settled.node) <= first
        risen = score(ledger, settled.node)
        print(f"{await prove_until(settled, risen)} epochs proven: {risen} -> {score(ledger, settled.node)}")
        top = score(ledger, settled.node)
        with pytest.raises(Refused) as refusal:
            await ledger.client.submit(asked(settled, "high", top + 1), timeout=30)
        assert refusal.value.reason is Reason.TrustTooLow
        epoch = ledger.mirror.epoch.number
        async with asyncio.timeout(LIMIT_S):
            await ledger.mirror.wait_until(lambda: score(ledger, settled.node) < top - 100, LIMIT_S)
        silent = ledger.mirror.epoch.number - epoch
        print(f"{silent} epochs of silence: {top} -> {score(ledger, settled.node)}")
        with pytest.raises(Refused) as refusal:
            await ledger.client.submit(asked(settled, "low", top), timeout=30)
        assert refusal.value.reason is Reason.TrustTooLow
        await ledger.client.submit(asked(settled, "fair", score(ledger, settled.node) - 500), timeout=30)


def asked(settled: Settled, uid: str, minimum: int) -> bytes:
    """An allocation that asks for a trust score."""
    envelope = ledger_pb2.Envelope.FromString(settled.allocate(uid))
    allocate = ledger_pb2.Operation.FromString(envelope.operation).allocate
    allocate.min_trust_score = minimum
    return settled.ledger.envelope(settled.operator, settled.refs(), allocate=allocate)


def desk(ledger: Ledger, who: Member) -> Desk:
    """What `hypermesh-agent delegate` and the others work with."""
    return Desk(ledger.mirror, Submitter(ledger.client, ledger.mirror, who.keypair), who.key_id)


async def refused(deed: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        await deed  # type: ignore[misc]
    return refusal.value.reason


async def test_a_delegate_may_until_it_may_no_more(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, patient()) as ledger:
        settled = await settle(ledger, 100)
        friend = await ledger.enrol(trust_pb2.ROLE_NODE, "friend", cluster=2, cluster_uid=OTHER_CLUSTER)
        owner, theirs, name = desk(ledger, settled.node), desk(ledger, friend), settled.cpu.name
        assert delegating.key_named(ledger.mirror.nodes, "friend") == friend.key_id
        assert await refused(delegating.share(theirs, name, True, None)) is Reason.RoleForbidden

        print(await delegating.delegate(owner, friend.key_id, ["sharing", "release"], 1.0))
        await ledger.mirror.wait_until(lambda: owner.revision == 1, 30)
        print(await delegating.share(theirs, name, True, "0.5"))
        await ledger.mirror.wait_until(
            lambda: ledger.mirror.assets[settled.cpu.asset_id].registration.sharing.paused, 30
        )
        record = ledger.mirror.assets[settled.cpu.asset_id]
        assert not record.owner_sharing.paused
        assert await refused(ledger.client.submit(settled.allocate("paused"), timeout=30)) is Reason.AssetPaused
        print(await delegating.share(theirs, name, False, None))
        await ledger.client.submit(settled.allocate("held"), timeout=30)
        held = operations.allocation_id(settled.operator.body.cluster_uid, "held")
        await ledger.mirror.wait_until(lambda: held in ledger.mirror.allocations, 30)
        print(await delegating.release(theirs, held))
        await ledger.mirror.wait_until(lambda: settled.reserved == 0, 30)

        print(await delegating.revoke(owner, friend.key_id))
        await ledger.mirror.wait_until(lambda: owner.revision == 2, 30)
        assert await refused(delegating.share(theirs, name, True, None)) is Reason.RoleForbidden
        await delegating.delegate(owner, friend.key_id, ["sharing"], 2 / 86_400)  # two seconds
        await ledger.mirror.wait_until(lambda: owner.revision == 3, 30)
        until = ledger.mirror.delegations[settled.node.key_id].delegations[0].until_ms
        await ledger.mirror.wait_until(lambda: ledger.mirror.view.block_time_ms > until, 60)
        assert await refused(delegating.share(theirs, name, True, None)) is Reason.RoleForbidden
