"""The mirror's view: tickets come and go with the ledger's; and how long the chain has stood still."""

from __future__ import annotations

import pytest

from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients.mirror import View

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
