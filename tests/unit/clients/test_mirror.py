"""The mirror's view: tickets come and go with the ledger's; and how long the chain has stood still."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import AsyncGenerator

import pytest

from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients import mirror as mirror_module
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import CATCH_UP_S, HALTED_S, Mirror, View

WORK, SPACE = proofs_pb2.PROOF_KIND_WORK, proofs_pb2.PROOF_KIND_SPACE


def ticket(kind: proofs_pb2.ProofKind, epoch: int, node: bytes = b"n", subject: bytes = b"d") -> proofs_pb2.Ticket:
    return proofs_pb2.Ticket(kind=kind, epoch=epoch, node=node, subject=subject)


@pytest.mark.parametrize("kind", [WORK, SPACE])
def test_only_the_newest_ticket_can_go(kind: proofs_pb2.ProofKind) -> None:
    view = View()
    view.apply(ledger_pb2.Change(ticket=ticket(kind, 2)))
    view.apply(ledger_pb2.Change(ticket_gone=ticket(kind, 1)))
    view.apply(ledger_pb2.Change(ticket_gone=ticket(kind, 2, subject=b"other")))
    assert (kind, b"d") in view.tickets
    assert bool(view.work_tickets) is (kind == WORK)
    view.apply(ledger_pb2.Change(ticket_gone=ticket(kind, 2)))
    assert not view.tickets
    assert not view.work_tickets


class Feed:
    """Stands for the ledger's service, which here only has to send what the test says."""

    def __init__(self, *batches: ledger_pb2.Changes) -> None:
        self._batches = batches

    async def watch(self, node: bytes) -> AsyncGenerator[ledger_pb2.Changes, None]:
        for batch in self._batches:
            yield batch
        await asyncio.Event().wait()


async def test_markers_of_one_height_do_not_hide_a_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is heard a second after the one before; only the height says that blocks come."""
    clock = itertools.count(100.0, 1.0)
    now = next(clock)

    def tick() -> float:
        return now

    def advance(_: ledger_pb2.Change) -> None:
        nonlocal now
        now = next(clock)

    start = [ledger_pb2.Change(status=ledger_pb2.StatusResponse(height=7)), ledger_pb2.Change(synced=True)]
    markers = [ledger_pb2.Changes(changes=[ledger_pb2.Change(block=ledger_pb2.Block(height=8))]) for _ in range(20)]
    mirror = Mirror(Feed(ledger_pb2.Changes(changes=start), *markers))  # type: ignore[arg-type]
    assert mirror.problem() is not None
    monkeypatch.setattr(mirror_module, "time", types.SimpleNamespace(monotonic=tick))
    mirror.subscribe(advance)
    following = asyncio.create_task(mirror.run())
    await mirror.wait_until(lambda: now >= 121.0, 10)
    await asyncio.sleep(0)
    assert mirror.age() <= 1.0
    assert mirror.stalled_for() > HALTED_S
    assert "no block for" in str(mirror.problem())
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


class Ledgers:
    """One connection after another; each ends when it has said all, the last one stays."""

    def __init__(self, *connections: list[ledger_pb2.Changes]) -> None:
        self._connections = list(connections)

    async def watch(self, node: bytes) -> AsyncGenerator[ledger_pb2.Changes, None]:
        batches = self._connections.pop(0)
        for batch in batches:
            yield batch
            await asyncio.sleep(0)
        if not self._connections:
            await asyncio.Event().wait()
        raise LedgerUnavailable("gone")


def at(height: int, *more: ledger_pb2.Change, chain: str = "c") -> ledger_pb2.Changes:
    """All that a ledger holds at a height."""
    status = ledger_pb2.StatusResponse(chain_id=chain, height=height)
    return ledger_pb2.Changes(
        changes=[ledger_pb2.Change(status=status), *more, ledger_pb2.Change(synced=True)],
    )


def block(height: int, *more: ledger_pb2.Change) -> ledger_pb2.Changes:
    return ledger_pb2.Changes(changes=[*more, ledger_pb2.Change(block=ledger_pb2.Block(height=height))])


GRANTED = ledger_pb2.Change(allocation=ledger_pb2.AllocationRecord(allocation_id=b"a" * 32))


async def heard_by(mirror: Mirror, height: int) -> list[ledger_pb2.Change]:
    """What a follower is told until the mirror is there."""
    told: list[ledger_pb2.Change] = []
    mirror.subscribe(told.append)
    following = asyncio.create_task(mirror.run())
    await mirror.wait_until(lambda: mirror.height == height, 10)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return told


async def test_what_was_granted_is_not_gone_while_another_ledger_of_the_chain_catches_up() -> None:
    behind = [at(7), block(8), block(9, GRANTED), block(10)]
    mirror = Mirror(Ledgers([at(9, GRANTED)], behind))  # type: ignore[arg-type]
    told = await heard_by(mirror, 10)
    assert not [each for each in told if each.WhichOneof("record") == "allocation_gone"]
    assert set(mirror.allocations) == {b"a" * 32}


async def test_a_ledger_that_stays_behind_is_a_restored_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100.0, CATCH_UP_S / 2)
    monkeypatch.setattr(mirror_module, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    mirror = Mirror(Ledgers([at(9, GRANTED)], [at(7), *(block(7) for _ in range(10)), block(8)]))  # type: ignore[arg-type]
    told = await heard_by(mirror, 8)
    assert [each.allocation_gone for each in told if each.WhichOneof("record") == "allocation_gone"] == [b"a" * 32]
    assert not mirror.allocations


async def test_another_chain_is_believed_at_once() -> None:
    mirror = Mirror(Ledgers([at(9, GRANTED)], [at(2, chain="d")]))  # type: ignore[arg-type]
    await heard_by(mirror, 2)
    assert not mirror.allocations
