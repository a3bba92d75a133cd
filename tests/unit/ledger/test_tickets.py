"""All four tickets, always; and a refusal says which of them and what is wrong with it."""

from __future__ import annotations

import pytest

from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason
from hypermesh.v1 import proofs_pb2, trust_pb2

from ...builders import allocation
from .world import SPACE, TIME, WORK, Settled

EPOCH_MS = 60_000


def refused_with(settled: Settled, refs: proofs_pb2.TicketRefs) -> Reason | None:
    asked = allocation(settled.node, settled.cpu, "u", 1)
    return settled.reason(settled.tx(settled.operator, refs, allocate=asked))


@pytest.mark.parametrize("kind", ["space", "work", "time"])
def test_unknown_ticket(settled: Settled, kind: str) -> None:
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    setattr(refs, kind, b"\1" * 32)
    assert refused_with(settled, refs) == f"{kind.capitalize()}TicketMissing"


@pytest.mark.parametrize("kind", ["space", "work", "time"])
def test_ticket_of_another_node(settled: Settled, kind: str) -> None:
    other = settled.enrol(trust_pb2.ROLE_NODE, "node-2")
    device = other.asset_id(1, "cpu-0")
    settled.win(other, device)
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    foreign = settled.refs(settled.operator, other, device)
    setattr(refs, kind, getattr(foreign, kind))
    assert refused_with(settled, refs) == f"{kind.capitalize()}TicketForeign"


def test_ticket_of_another_kind_or_device(settled: Settled) -> None:
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    refs.space, refs.time = refs.time, refs.space
    assert refused_with(settled, refs) is Reason.SpaceTicketForeign
    gpu = settled.node.asset_id(2, "gpu-0")
    settled.win(settled.node, gpu)
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    refs.work = settled.newest(WORK, settled.node, gpu)
    assert refused_with(settled, refs) is Reason.WorkTicketForeign


@pytest.mark.parametrize("kind", ["space", "stake", "work", "time"])
def test_stale_after_the_grace_and_fresh_within(settled: Settled, kind: str) -> None:
    old = settled.refs(settled.operator, settled.node, settled.cpu_id)
    grace = settled.genesis.proofs.grace_epochs
    settled.block(after_ms=grace * EPOCH_MS)
    asked = allocation(settled.node, settled.cpu, "within", 1)
    assert settled.reason(settled.tx(settled.operator, old, allocate=asked)) is None
    settled.block(after_ms=EPOCH_MS)
    settled.win(settled.node, settled.cpu_id)
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    assert refused_with(settled, refs) is None
    setattr(refs, kind, getattr(old, kind))
    asked = allocation(settled.node, settled.cpu, "after", 1)
    result = settled.do(settled.tx(settled.operator, refs, allocate=asked))
    assert result.reason == f"{kind.capitalize()}TicketStale"


def test_stake_of_another_signer_or_role(settled: Settled) -> None:
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    refs.stake = settled.refs(settled.node, settled.node, settled.cpu_id).stake
    assert refused_with(settled, refs) is Reason.StakeTicketForeign
    who = settled.operator
    refs.stake = stake_ticket_hash(who.key_id, trust_pb2.ROLE_NODE, who.certificate, settled.epoch.number)
    assert refused_with(settled, refs) is Reason.StakeTicketForeign
    refs.stake = stake_ticket_hash(who.key_id, who.body.role, who.certificate, settled.epoch.number + 1)
    assert refused_with(settled, refs) is Reason.StakeTicketForeign


def test_dead_tickets_are_forgotten_but_the_newest_stays(settled: Settled) -> None:
    for _ in range(20):
        settled.block(after_ms=EPOCH_MS)
        settled.win(settled.node, settled.cpu_id)
    kept = [key for key in settled.state.entries if key.startswith(b"hash/")]
    assert len(kept) <= 3 * (settled.genesis.proofs.grace_epochs + 8 + 1)
    settled.block(after_ms=1_000 * EPOCH_MS)
    assert settled.newest(SPACE, settled.node, settled.node.key_id)
    assert settled.newest(TIME, settled.node, settled.node.key_id)
