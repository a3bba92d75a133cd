"""The application between its edges: checks of a block are settled together, and a key fills only its share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import admission, looking
from hypermesh_ledger import core as core_module
from hypermesh_ledger import verifier as verifier_module
from hypermesh_ledger.admission import TOGETHER
from hypermesh_ledger.checks import Check, Signature, Verify
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import HeightNotKept, TooManyLookBack, Undecided
from hypermesh_ledger.execution import Block, Outcome, Result, execute
from hypermesh_ledger.history import Past
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pool import EVERYBODYS_SHARE, OPERATORS_SHARE, Pool, Share
from hypermesh_ledger.pool.limits import WHOLE
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import FEW, Unsettled, Verdicts
from hypermesh_ledger.verifier import Verifier

from ...builders import TrustRoot, allocation
from . import proofs
from .world import CPU, Settled, World


def core_of(world: World, directory: Path, gossip: bool = False) -> tuple[Core, Verifier]:
    """A core on the world's state, nothing verified yet."""
    store = Store(directory)
    prepared = store.prepare(world.height, world.now_ms, dict(world.state.entries))
    store.commit(prepared)
    store.advance(prepared)
    verifier = Verifier()
    return Core(store, Verdicts(verifier), Pool(gossip), Metrics(CollectorRegistry())), verifier


async def until(so: Callable[[], bool]) -> None:
    """Of what this very event loop does."""
    async with asyncio.timeout(30):
        while not so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_proofs_of_a_block_are_settled_in_one_pass(
    root: TrustRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(root, proofs.small())
    txs = []
    for name in ("node-1", "node-2"):
        node = world.enrol(trust_pb2.ROLE_NODE, name)
        commitment = proofs.commitment(world, node, node.asset_id(CPU, "cpu-0"), node.asset_id(CPU, "cpu-1"))
        assert world.reason(world.tx(node, commit_work=commitment)) is None
        proof = proofs.proof(world, node, tmp_path / name)
        if name == "node-2":
            proof.time.output = bytes([proof.time.output[0] ^ 1]) + proof.time.output[1:]
        txs.append(world.tx(node, prove=proof))
    executions = []

    def counted(*arguments: object) -> Outcome:
        executions.append(arguments)
        return execute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(core_module, "execute", counted)
    core, verifier = core_of(world, tmp_path / "state")
    pending = await core.finalize(Block(world.height + 1, world.now_ms + 10, b"h" * 32, txs))
    assert [result.reason for result in pending.outcome.results] == [None, Reason.TimeProofInvalid]
    assert len(executions) == 2
    assert world.block(*txs) == pending.outcome.results
    await verifier.close()
    core.store.close()


async def test_signatures_that_come_with_a_block_are_verified_together(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once; execution finds their answers."""
    txs = [settled.allocate(allocation(settled.node, settled.cpu, f"new-{index}", 1)) for index in range(4)]
    forged = operations.decode(txs[1]).envelope
    forged.signature = forged.signature[:-100] + bytes([forged.signature[-100] ^ 1]) + forged.signature[-99:]
    txs += [operations.canonical(forged), b"no transaction"]
    core, verifier = core_of(settled, tmp_path / "state")
    batches: list[int] = []
    asked = verifier.signatures
    monkeypatch.setattr(verifier, "signatures", lambda checks: batches.append(len(checks)) or asked(checks))
    pending = await core.finalize(Block(settled.height + 1, settled.now_ms + 10, b"h" * 32, txs))
    assert batches == [5]
    assert [result.reason for result in pending.outcome.results] == [
        *(None, None, None, None),
        *(Reason.BadSignature, Reason.Malformed),
    ]
    assert settled.block(*txs) == pending.outcome.results
    await verifier.close()
    core.store.close()


async def test_a_block_is_judged_the_same_when_its_signatures_find_no_room(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers' may fill the queue; who brings many is told to come again, a block computes its own."""
    monkeypatch.setattr(verifier_module, "SIGNATURES", 0)
    many = [settled.allocate(allocation(settled.node, settled.cpu, f"new-{index}", 1)) for index in range(FEW + 1)]
    core, verifier = core_of(settled, tmp_path / "state")
    told = [outcome async for group in core.admission.submit_many(many) for _, outcome in group]
    assert [each.reason for each in told if isinstance(each, Refused)] == [Reason.MempoolFull] * len(many)
    pending = await core.finalize(Block(settled.height + 1, settled.now_ms + 10, b"h" * 32, many))
    assert [result.reason for result in pending.outcome.results] == [None] * len(many)
    await verifier.close()
    core.store.close()


async def test_who_waits_in_vain_is_told(settled: Settled, tmp_path: Path) -> None:
    """Not by a time-out, but by the reason, as soon as no block can take the operation any more."""
    core, verifier = core_of(settled, tmp_path / "state")
    tx = settled.allocate(allocation(settled.node, settled.cpu, "late", 1))
    until_ms = operations.decode(tx).operation.valid_until_ms
    submitting = asyncio.create_task(core.admission.submit(tx))
    async with asyncio.timeout(30):
        assert await core.pool.filled(30)
        await core.finalize(Block(settled.height + 1, until_ms, b"h" * 32, ()))
        await core.commit()
        assert len(core.pool) == 1  # valid to the last millisecond
        await core.finalize(Block(settled.height + 2, until_ms + 1, b"h" * 32, ()))
        await core.commit()
        result = await submitting
    assert (result.reason, result.height, len(core.pool)) == (Reason.Expired, 0, 0)
    assert result.message
    await verifier.close()
    core.store.close()


@pytest.mark.parametrize(("patience_s", "halt_s"), [(0.2, 60.0), (60.0, 0.2)])
async def test_who_waits_for_a_chain_that_stands_is_told_in_time(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, halt_s: float
) -> None:
    """It stays in the pool, and whoever submits it again hears what became of it."""
    monkeypatch.setattr(admission, "HALT_S", halt_s)
    core, _ = core_of(settled, tmp_path / "state")
    tx = settled.allocate(allocation(settled.node, settled.cpu, "standing", 1))
    async with asyncio.timeout(30):
        with pytest.raises(Undecided, match=f"newest block here, {settled.height}, is"):
            await core.admission.submit(tx, patience_s)
        assert len(core.pool) == 1
        monkeypatch.setattr(admission, "HALT_S", 60.0)
        again = asyncio.create_task(core.admission.submit(tx))
        await asyncio.sleep(0)
        await core.finalize(Block(settled.height + 1, settled.now_ms + 10, b"h" * 32, [tx]))
        await core.commit()
        assert ((await again).reason, (await again).height) == (None, settled.height + 1)
    core.store.close()


async def test_blocks_that_come_keep_a_submitter_waiting(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its turn takes."""
    monkeypatch.setattr(admission, "HALT_S", 1.0)
    core, _ = core_of(settled, tmp_path / "state")
    tx = settled.allocate(allocation(settled.node, settled.cpu, "patient", 1))
    submitting = asyncio.create_task(core.admission.submit(tx))
    async with asyncio.timeout(30):
        for count in range(1, 21):
            await core.finalize(Block(settled.height + count, settled.now_ms + count, b"h" * 32, ()))
            await core.commit()
            await asyncio.sleep(0.1)
        assert not submitting.done()
        await core.finalize(Block(settled.height + 21, settled.now_ms + 21, b"h" * 32, [tx]))
        await core.commit()
        assert (await submitting).reason is None
    core.store.close()


async def test_a_lone_ledger_refuses_at_once(settled: Settled, tmp_path: Path) -> None:
    core, _ = core_of(settled, tmp_path / "state")
    too_much = settled.allocate(allocation(settled.node, settled.cpu, "much", 1 << 40))
    for tx, reason in (
        (too_much, Reason.InsufficientCapacity),
        (settled.release(b"i" * 32), Reason.NoSuchAllocation),
    ):
        with pytest.raises(Refused) as caught:
            await core.admission.submit(tx)
        assert caught.value.reason is reason
    core.store.close()


async def test_with_peers_a_block_says_what_a_ledger_that_is_behind_can_not(settled: Settled, tmp_path: Path) -> None:
    core, _ = core_of(settled, tmp_path / "state", gossip=True)
    asked = allocation(settled.node, settled.cpu, "elsewhere", 1)
    allocate, release = settled.allocate(asked), settled.release(asked.allocation_id)
    too_much = settled.allocate(allocation(settled.node, settled.cpu, "much", 1 << 40))
    async with asyncio.timeout(30):
        waiting = [asyncio.create_task(core.admission.submit(each)) for each in (too_much, release)]
        while len(core.pool) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        height, txs = settled.height + 1, [too_much, allocate, release]  # a peer's block brings the Allocate
        await core.finalize(Block(height, settled.now_ms + 10, b"h" * 32, txs))
        await core.commit()
        results = [(each.reason, each.height) for each in await asyncio.gather(*waiting)]
    assert results == [(Reason.InsufficientCapacity, height), (None, height)]
    core.store.close()


async def test_what_a_block_decided_is_not_pooled_again_when_a_peers_copy_comes_late(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an Allocate whose tenant was told that it is refused would be granted later."""
    monkeypatch.setattr(admission, "DECIDED", 2)
    core, _ = core_of(settled, tmp_path / "state", gossip=True)
    refused = settled.allocate(allocation(settled.node, settled.cpu, "much", 101))
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    update = ledger_pb2.UpdateAsset(asset_id=settled.cpu_id, revision=1, capacity=200, sharing=settled.cpu.sharing)
    committed = settled.tx(settled.node, refs, update_asset=update)
    height = settled.height + 1
    await core.finalize(Block(height, settled.now_ms + 10, b"h" * 32, [refused, committed]))
    await core.commit()
    with pytest.raises(Refused) as caught:
        await core.admission.submit(refused)
    assert caught.value.reason is Reason.InsufficientCapacity
    again = await core.admission.submit(committed)
    assert (again.reason, again.height, len(core.pool)) == (None, height, 0)
    others = [settled.allocate(allocation(settled.node, settled.cpu, f"u{each}", 1)) for each in range(2)]
    await core.finalize(Block(height + 1, settled.now_ms + 20, b"h" * 32, others))
    await core.commit()
    assert list(core.admission._decided) == [operations.tx_hash(each) for each in others], "bounded"
    core.store.close()


async def test_shares_of_the_pool(settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "OPERATORS_SHARE", Share(2, 1 << 20))
    monkeypatch.setattr(admission, "EVERYBODYS_SHARE", Share(1, 1 << 20))
    core, verifier = core_of(settled, tmp_path / "state")
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    update = ledger_pb2.UpdateAsset(asset_id=settled.cpu_id, revision=1, sharing=settled.cpu.sharing)
    updates = []
    for update.capacity in (101, 102):
        updates.append(settled.tx(settled.node, refs, update_asset=update))
    allocations = [settled.allocate(allocation(settled.node, settled.cpu, f"u{each}", 1)) for each in range(3)]
    for admitted, too_many in ((updates[:1], updates[1]), (allocations[:2], allocations[2])):
        for tx in admitted:
            assert await core.admission.admit(tx, operations.tx_hash(tx)) is None
        with pytest.raises(Refused) as caught:
            await core.admission.admit(too_many, operations.tx_hash(too_many))
        assert caught.value.reason is Reason.MempoolFull
    assert len(core.pool) == 3
    for less, more in ((EVERYBODYS_SHARE, OPERATORS_SHARE), (OPERATORS_SHARE, WHOLE)):
        assert less.txs < more.txs
        assert less.bytes < more.bytes
    await verifier.close()
    core.store.close()


async def test_many_at_once_get_each_its_own_answer(settled: Settled, tmp_path: Path) -> None:
    """As one by one; the good ones when a block has decided, what is wrong at once, and twice the same once."""
    core, verifier = core_of(settled, tmp_path / "state")
    good = [settled.allocate(allocation(settled.node, settled.cpu, f"many-{each}", 1)) for each in range(20)]
    too_much = settled.allocate(allocation(settled.node, settled.cpu, "too-much", 101))
    forged = operations.decode(settled.allocate(allocation(settled.node, settled.cpu, "forged", 1))).envelope
    forged.signature = operations.decode(good[0]).envelope.signature
    txs = [b"no envelope", *good, too_much, operations.canonical(forged), good[3]]
    groups = core.admission.submit_many(txs)
    async with asyncio.timeout(60):
        first = await anext(groups)
        told = {index: outcome.reason for index, outcome in first}
        assert told == {0: Reason.Malformed, 21: Reason.InsufficientCapacity, 22: Reason.BadSignature}
        assert len(core.pool) == 20
        block = Block(settled.height + 1, settled.now_ms + 10, b"h" * 32, core.pool.take(1 << 20, settled.now_ms))
        await core.finalize(block)
        await core.commit()
        rest = [outcome async for group in groups for outcome in group]
    assert sorted(index for index, _ in rest) == [*range(1, 21), 23]
    assert all(isinstance(each, Result) and each.reason is None and each.height == block.height for _, each in rest)
    assert not core.pool._waiters
    await verifier.close()
    core.store.close()


async def test_what_waits_for_a_proof_is_in_nobodys_way(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of its own call's others, nor of another call's, nor of what peers tell."""
    core, verifier = core_of(settled, tmp_path / "state")
    names = ("slow", "slow-too", "beside", "other", "told")
    slow, slow_too, beside, other, told = (
        settled.allocate(allocation(settled.node, settled.cpu, name, 1)) for name in names
    )
    proven, judged = asyncio.Event(), core.admission._height

    def height(block: Block, decoded: operations.Decoded, heard: bool, verify: Verify) -> int:
        if decoded.raw in (slow, slow_too) and not proven.is_set():
            raise Unsettled(Signature(b"", b"", b"", b""))
        return judged(block, decoded, heard, verify)

    async def settle(check: Check, lane: bytes | None = None) -> None:
        await proven.wait()

    monkeypatch.setattr(core.admission, "_height", height)
    monkeypatch.setattr(core.verdicts, "settle", settle)
    calls = [asyncio.create_task(anext(core.admission.submit_many(txs))) for txs in ([slow, beside], [other])]
    (later,) = await core.admission.hear([slow_too, told])
    assert later.raw == slow_too
    await until(lambda: len(core.pool) == 3)
    assert all(operations.tx_hash(tx) in core.pool for tx in (beside, other, told))
    proving = asyncio.create_task(core.admission.admit(later.raw, later.tx_hash, later, heard=True))
    proven.set()
    await until(lambda: len(core.pool) == 5)
    assert await proving is None
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert not core.pool._waiters
    await verifier.close()
    core.store.close()


async def test_what_peers_tell_waits_for_no_call(settled: Settled, tmp_path: Path) -> None:
    """Strangers may have as many under way as fit."""
    core, verifier = core_of(settled, tmp_path / "state", gossip=True)
    async with core.admission._calls.decoding, core.admission._calls.judging:
        call = asyncio.create_task(anext(core.admission.submit_many([b"noise"])))
        assert not await core.admission.hear([settled.allocate(allocation(settled.node, settled.cpu, "told", 1))])
        assert len(core.pool) == 1
        assert not call.done()
    assert [index for index, _ in await call] == [0]
    await verifier.close()
    core.store.close()


async def test_many_that_are_noise_leave_others_their_turn(settled: Settled, tmp_path: Path) -> None:
    core, verifier = core_of(settled, tmp_path / "state")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(other())
    await core.admission.decoded_together([b""] * (8 * TOGETHER))
    task.cancel()
    assert turns >= 6
    await verifier.close()
    core.store.close()


async def test_who_looks_back_waits_for_others_and_not_for_ever(
    settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, also when who asked has gone: a thread can't be cancelled."""
    core, verifier = core_of(settled, tmp_path / "state")
    begun, end, height = threading.Event(), threading.Event(), core.store.head.height

    def slow(past: Past) -> int:
        begun.set()
        assert end.wait(30)
        return past.height

    gone = asyncio.create_task(core.past._look_back(height, slow))
    await asyncio.to_thread(begun.wait, 30)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    monkeypatch.setattr(looking, "LOOK_BACK_S", 0.05)
    with pytest.raises(TooManyLookBack, match="again later"):
        await core.past.value(b"a", height)
    monkeypatch.setattr(looking, "LOOK_BACK_S", 30)
    patient = asyncio.create_task(core.past.value(b"a", height))
    end.set()
    assert await patient is None
    with pytest.raises(HeightNotKept):
        await core.past.value(b"a", height + 5)
    assert not core.past._looking_back.locked()
    await verifier.close()
    core.store.close()
