"""A validator's own side: it computes what it was drawn for, tells it until the state has it, and never waits."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from hypermesh.operations import canonical
from hypermesh.proofs import products
from hypermesh.v1 import ledger_pb2, proofs_pb2, votes_pb2
from hypermesh_ledger import keys, rechecking, recomputing
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.rechecking import AGREE, DISAGREE, SKIPPED, Rechecks
from hypermesh_ledger.state import Memory

from . import proofs

ME, OTHER = b"m" * 20, b"o" * 20
CHALLENGE, DEVICE = b"c" * 32, b"d" * 32
Record = votes_pb2.RecheckRecord


def state(*records: Record) -> Memory:
    genesis = ledger_pb2.Genesis(proofs=proofs.small())
    entries = {keys.recheck(each.epoch, each.result): canonical(each) for each in records}
    return Memory({keys.GENESIS: canonical(genesis)} | entries)


def record(number: int = 0, root: bytes = b"r" * 32, drawn: bytes = ME, outcome: int = 0) -> Record:
    made = Record(result=bytes([number]) * 32, epoch=7, challenge=CHALLENGE, device=DEVICE, root=root)
    made.drawn.add(address=OTHER)
    made.drawn.add(address=drawn, outcome=outcome)  # type: ignore[arg-type]
    return made


def writes(*records: Record) -> list[tuple[bytes, bytes | None]]:
    return [(keys.recheck(each.epoch, each.result), canonical(each)) for each in records]


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


async def computed(checks: Rechecks, count: int) -> list[votes_pb2.Verdict]:
    """Once that many verdicts are ready."""
    running = asyncio.create_task(checks.run())
    async with asyncio.timeout(120):
        while len(checks.verdicts()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return checks.verdicts()


async def test_the_worker_computes_what_the_prover_did() -> None:
    params = proofs.small()
    right = products.commit(CHALLENGE, DEVICE, params, products.multiply_numpy)
    assert await recomputing.root_of(CHALLENGE, DEVICE, params) == right
    checks = Rechecks(ME, metrics())
    checks.begin(state(record(0, right), record(1), record(2, drawn=b"x" * 20), record(3, outcome=AGREE)))
    found = await computed(checks, 2)
    assert [(each.result[0], each.outcome) for each in found] == [(0, AGREE), (1, DISAGREE)]
    assert [each.epoch for each in found] == [7, 7]


async def test_one_wrong_number_in_the_whole_product_is_seen() -> None:
    def faked(left: products.Int8, right: products.Int8) -> products.Int32:
        product = products.multiply_numpy(left, right)
        product[5, 7] += 1
        return product

    wrong = products.commit(CHALLENGE, DEVICE, proofs.small(), faked)
    checks = Rechecks(ME, metrics())
    checks.begin(state(record(0, wrong)))
    assert [each.outcome for each in await computed(checks, 1)] == [DISAGREE]


async def test_a_verdict_is_told_until_the_state_has_it() -> None:
    async def root_of(*_: object) -> bytes:
        return b"r" * 32

    checks = Rechecks(ME, metrics(), root_of)
    checks.begin(state())
    checks.committed(writes(record()), state())
    assert checks.verdicts() == []  # not ready: not in it
    assert len(await computed(checks, 1)) == 1
    changed = record()
    changed.drawn[0].outcome = AGREE  # somebody else's
    checks.committed(writes(changed), state())
    assert len(checks.verdicts()) == 1
    checks.committed(writes(record(outcome=AGREE)), state())
    assert checks.verdicts() == []
    checks.committed([(keys.recheck(7, b"\0" * 32), None)], state())
    assert checks.verdicts() == []


async def test_what_is_too_much_is_skipped_and_fits_into_an_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rechecking, "WAITING", 2)
    registry = CollectorRegistry()
    checks = Rechecks(ME, Metrics(registry))
    checks.begin(state(*(record(number) for number in range(200))))
    found = checks.verdicts()
    assert {each.outcome for each in found} == {SKIPPED}
    assert len(found) == rechecking.TOLD
    for each in found:
        each.epoch = (1 << 63) - 1
    said = canonical(votes_pb2.VoteExtension(clock_ms=1 << 52, verdicts=found))
    assert extensions.parse(said) is not None
    assert registry.get_sample_value("hypermesh_ledger_rechecks_total", {"outcome": "skipped"}) == 198


async def test_a_worker_that_fails_is_a_skipped_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputing, "TIMEOUT_S", 0.0)
    checks = Rechecks(ME, metrics())
    checks.begin(state(record()))
    assert [each.outcome for each in await computed(checks, 1)] == [SKIPPED]
    monkeypatch.undo()
    with pytest.raises(recomputing.Failed, match="status"):
        await recomputing.root_of(CHALLENGE, DEVICE, proofs_pb2.ProofParameters(work_n=63, work_rounds=1))
