"""Work results computed again by validators that nobody could choose, and what their verdicts do.

    Prove -> RecheckRecord with the validators drawn -> each computes the whole product -> verdict in its extension
          -> recorded; more than half of them disagree: the work ticket is revoked, the node's trust score falls

Openings show that most of a product was computed; a validator that computes all of it sees a single wrong tile. Runs
only where votes are extended: a lone validator would hear nobody but itself. See docs/decisions/0041-rechecks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypermesh.digests import DIGEST_BYTES, digest, u64
from hypermesh.operations import canonical
from hypermesh.v1 import ledger_pb2, proofs_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import extensions, scores
from hypermesh_ledger.execution.context import Context, read
from hypermesh_ledger.state import Fork, Reader

YOUNG_EPOCHS: Final = 10
"""Every result of a node is computed again in this many epochs after its first, and after one that was refuted."""
SAMPLED: Final = 10
"""Later one result in this many."""
DRAWN: Final = 3
"""Validators for each; all when there are fewer."""
KEPT_EPOCHS: Final = 10
"""A verdict that is not there by then does not come."""
PER_BLOCK: Final = 2_000
"""Records forgotten in one block at most."""

_DISAGREE: Final = votes_pb2.RECHECK_OUTCOME_DISAGREE
_OPEN: Final = votes_pb2.RECHECK_OUTCOME_UNSPECIFIED
Record = votes_pb2.RecheckRecord


def begin(
    context: Context, seed: ledger_pb2.WorkSeed, commitment: proofs_pb2.WorkCommitment, asked: bytes, ticket: bytes
) -> None:
    """Draw validators for a result that was just proven, unless it is spared.

    By the seed, which is known only after the commitment: by the beacon alone, a node would know beforehand which of
    its results nobody computes again.
    """
    if context.state.get(keys.EXTENSIONS) is None:
        return
    first = _first_epoch(context.state, seed.node, seed.epoch)
    draw = digest("recheck/draw", context.epoch.beacon, seed.seed, seed.node, commitment.device, u64(seed.epoch))
    if seed.epoch >= first + YOUNG_EPOCHS and int.from_bytes(draw[:8], "big") % SAMPLED:
        return
    record = Record(
        result=ticket,
        epoch=seed.epoch,
        node=seed.node,
        device=commitment.device,
        root=commitment.root,
        challenge=asked,
        height=context.height,
    )
    for address in _drawn(draw, list(extensions.signers(context.state, context.height))):
        record.drawn.add(address=address)
    if record.drawn:
        context.put(keys.recheck(seed.epoch, ticket), record)


def _drawn(draw: bytes, members: Sequence[bytes]) -> list[bytes]:
    return sorted(members, key=lambda address: digest("recheck/order", draw, address))[:DRAWN]


def _first_epoch(state: Fork, node: bytes, epoch: int) -> int:
    """From which its results count for a node's age; begun with its first."""
    held = read(state, keys.rechecked(node), votes_pb2.RecheckedNode)
    if held is not None:
        return held.first_epoch
    state.put(keys.rechecked(node), canonical(votes_pb2.RecheckedNode(first_epoch=epoch)))
    return epoch


def take_in(state: Fork, heard: extensions.Heard, epoch: int) -> None:
    """The verdicts that validators told beside their votes; others than of those drawn, or second ones, are nothing."""
    for address, said in heard:
        for verdict in said.verdicts:
            _record(state, address, verdict, epoch)
    _forget(state, epoch)


def _record(state: Fork, address: bytes, verdict: votes_pb2.Verdict, epoch: int) -> None:
    if len(verdict.result) != DIGEST_BYTES or verdict.outcome not in _KNOWN:
        return
    key = keys.recheck(verdict.epoch, verdict.result)
    record = read(state, key, Record)
    if record is None:
        return
    mine = [each for each in record.drawn if each.address == address and each.outcome == _OPEN]
    if not mine:
        return
    mine[0].outcome = verdict.outcome
    against = sum(each.outcome == _DISAGREE for each in record.drawn)
    if not record.refuted and 2 * against > len(record.drawn):
        record.refuted = True
        _revoke(state, record, epoch)
    state.put(key, canonical(record))


_KNOWN: Final = frozenset(votes_pb2.RecheckOutcome.values()) - {_OPEN}
"""Asked for membership only."""


def _revoke(state: Fork, record: Record, epoch: int) -> None:
    """The ticket stays where it is, so that what hangs on it can still be released, but is good for nothing else."""
    state.put(keys.rechecked(record.node), canonical(votes_pb2.RecheckedNode(first_epoch=epoch)))
    key = state.get(keys.ticket_hash(record.result))
    ticket = None if key is None else read(state, key, proofs_pb2.Ticket)
    if key is not None and ticket is not None:
        ticket.revoked = True
        state.put(key, canonical(ticket))
    scores.apply(state, record.node, scores.Event.FAKED)


def _forget(state: Fork, epoch: int) -> None:
    old: list[bytes] = []
    for key, _ in state.scan(keys.RECHECK):
        if keys.index_time(key, keys.RECHECK) + KEPT_EPOCHS >= epoch or len(old) == PER_BLOCK:
            break
        old.append(key)
    for key in old:
        state.delete(key)


def owed(record: Record, address: bytes) -> bool:
    """Whether this validator was drawn and its verdict is not in the state."""
    return any(each.address == address and each.outcome == _OPEN for each in record.drawn)


def records(state: Reader) -> list[Record]:
    """All that are kept, the oldest epoch first."""
    return [Record.FromString(value) for _, value in state.scan(keys.RECHECK)]
