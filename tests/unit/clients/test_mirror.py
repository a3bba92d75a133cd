"""The mirror's view: tickets come and go with the ledger's; and how long the chain has stood still."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import AsyncGenerator

import pytest

from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients import mirror as mirror_module
from hypermesh_clients.mirror import HALTED_S, Mirror, View

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
