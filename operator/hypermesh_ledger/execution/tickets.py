"""The four tickets that every asset operation names: each there, fresh, and of the right node, device and signer.

Space, work and time tickets are looked up by their hash, so that a refusal can tell a stale ticket from a foreign
one; the stake ticket follows from the signer's certificate and the epoch, and is computed again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import Context, Signer, read

REMEMBERED_EPOCHS: Final = 8
"""Epochs past their grace for which an old ticket is still known, so that it is refused as stale, not as unknown."""

_SPACE, _STAKE = proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_STAKE
_WORK, _TIME = proofs_pb2.PROOF_KIND_WORK, proofs_pb2.PROOF_KIND_TIME
_REASONS: Final = {
    _SPACE: (Reason.SpaceTicketMissing, Reason.SpaceTicketForeign, Reason.SpaceTicketStale),
    _STAKE: (Reason.StakeTicketMissing, Reason.StakeTicketForeign, Reason.StakeTicketStale),
    _WORK: (Reason.WorkTicketMissing, Reason.WorkTicketForeign, Reason.WorkTicketStale),
    _TIME: (Reason.TimeTicketMissing, Reason.TimeTicketForeign, Reason.TimeTicketStale),
}


def require_tickets(context: Context, signer: Signer, node: bytes, device: bytes, any_age: bool = False) -> None:
    """Raises Refused naming the proof whose ticket is missing, foreign or stale.

    node owns the asset, device is its work device; any_age forgives space, work and time tickets that are old but the
    newest there are: a machine that died can prove nothing, and must not lock its capacity by that.
    """
    named = context.decoded.read.tickets
    if named is None:
        raise ValueError(f"{context.decoded.kind} was decoded without tickets")
    space, stake, work, time = named
    _require_ticket(context, _SPACE, space, node, node, any_age)
    _require_stake(context, stake, signer)
    _require_ticket(context, _WORK, work, node, device, any_age)
    _require_ticket(context, _TIME, time, node, node, any_age)


def win(context: Context, kind: proofs_pb2.ProofKind, node: bytes, subject: bytes, epoch: int, value: bytes) -> None:
    """Record a won ticket; forget those of the same subject that are too old even to be called stale."""
    state = context.state
    for key, old in list(state.scan(keys.tickets(kind, node, subject))):
        old_ticket = proofs_pb2.Ticket.FromString(old)
        if _old(context, old_ticket):
            _forget(context, key, old_ticket)
    ticket = proofs_pb2.Ticket(
        kind=kind, subject=subject, epoch=epoch, hash=value, issued_ms=context.time_ms, node=node
    )
    key = keys.ticket(kind, node, subject, epoch)
    context.put(key, ticket)
    state.put(keys.ticket_hash(value), key)


def forget_work(context: Context, node: bytes) -> None:
    """Forget the old work tickets of devices that are gone: all but the newest that an asset still depends on."""
    prefix = keys.tickets(_WORK, node, node)
    held = [(key, proofs_pb2.Ticket.FromString(value)) for key, value in context.state.scan(prefix)]
    newest = {ticket.subject: key for key, ticket in held}  # keys are in the order of epochs
    for key, ticket in held:
        if _old(context, ticket) and (newest[ticket.subject] != key or not _depended_on(context, ticket)):
            _forget(context, key, ticket)


def _old(context: Context, ticket: proofs_pb2.Ticket) -> bool:
    return ticket.epoch < context.epoch.number - context.genesis.proofs.grace_epochs - REMEMBERED_EPOCHS


def _forget(context: Context, key: bytes, ticket: proofs_pb2.Ticket) -> None:
    context.state.delete(key)
    context.state.delete(keys.ticket_hash(ticket.hash))


def _depended_on(context: Context, ticket: proofs_pb2.Ticket) -> bool:
    """Whether a registered asset names the device; mostly that is the device's own."""
    index = keys.devices(ticket.subject)
    named = (key[len(index) :] for key, _ in context.state.scan(index))
    assets = (read(context.state, keys.asset(each), ledger_pb2.AssetRecord) for each in (ticket.subject, *named))
    wanted = (each for each in assets if each is not None and not each.retired)
    return any(ticket.subject in (each.registration.asset_id, each.registration.work_device) for each in wanted)


def _require_ticket(
    context: Context, kind: proofs_pb2.ProofKind, named: bytes, node: bytes, subject: bytes, any_age: bool
) -> None:
    missing, foreign, stale = _REASONS[kind]
    key = context.state.get(keys.ticket_hash(named))
    value = None if key is None else context.state.get(key)
    if value is None:
        raise Refused(missing, f"The ledger holds no {_proof(kind)} ticket {named.hex()[:16]}.")
    ticket = _ticket(value)
    if ticket.whose != (kind, node, subject):
        text = f"The {_proof(kind)} ticket {named.hex()[:16]} is not that of node {node.hex()[:16]}"
        raise Refused(foreign, f"{text} for {subject.hex()[:16]}.")
    if ticket.revoked and not any_age:
        text = f"Validators computed the work of ticket {named.hex()[:16]} again and got another result."
        raise Refused(Reason.WorkTicketRevoked, text)
    stale_now = ticket.epoch + context.genesis.proofs.grace_epochs < context.epoch.number
    if stale_now and not (any_age and key == _newest(context, kind, node, subject)):
        now = context.epoch.number
        text = f"The {_proof(kind)} ticket {named.hex()[:16]} is of epoch {ticket.epoch}; now is {now}."
        raise Refused(stale, text)


@dataclass(frozen=True, slots=True)
class _Held:
    """What is asked of a ticket in the state."""

    whose: tuple[int, bytes, bytes]
    """Kind, node, subject."""
    epoch: int
    revoked: bool


@lru_cache(1_024)
def _ticket(value: bytes) -> _Held:
    ticket = proofs_pb2.Ticket.FromString(value)
    return _Held((ticket.kind, ticket.node, ticket.subject), ticket.epoch, ticket.revoked)


def _proof(kind: proofs_pb2.ProofKind) -> str:
    return proofs_pb2.ProofKind.Name(kind).removeprefix("PROOF_KIND_").lower()


def _newest(context: Context, kind: proofs_pb2.ProofKind, node: bytes, subject: bytes) -> bytes | None:
    newest = None
    for key, _ in context.state.scan(keys.tickets(kind, node, subject)):
        newest = key
    return newest


def _require_stake(context: Context, named: bytes, signer: Signer) -> None:
    _, foreign, stale = _REASONS[_STAKE]
    now, grace = context.epoch.number, context.genesis.proofs.grace_epochs
    for epoch in range(now, max(0, now - grace - REMEMBERED_EPOCHS) - 1, -1):
        if named == _stake(signer, epoch):
            if epoch + grace < now:
                raise Refused(stale, f"The stake ticket is of epoch {epoch}; now is {now}.")
            return
    raise Refused(foreign, f"The stake ticket {named.hex()[:16]} does not follow from {signer.body.subject}'s key.")


@lru_cache(1_024)
def _stake(signer: Signer, epoch: int) -> bytes:
    return stake_ticket_hash(signer.key_id, signer.body.role, signer.record.certificate, epoch)
