"""Delegate and Revoke: an owner's leave for another enrolled key to do some of what it may. See decision 0052.

    owner's Delegate -> Delegations of the owner -> an operation signed by the delegate -> granted? -> as if the owner's

One record an owner, at most LIVE entries in it, found by the owner of what the operation is about: so a right reaches
exactly one step, and who holds one can't hand it on. The delegate signs, and its own stake ticket is named; space, work
and time stay those of the asset's node. Entries end by block time.
"""

from __future__ import annotations

from typing import Final

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import Context, Signer, read, require

LIVE: Final = 16
"""Keys that one owner may have acting for it at a time."""
LONGEST_MS: Final = 366 * 24 * 3_600_000
SHARING: Final = ledger_pb2.DELEGATION_RIGHT_SHARING
RELEASE: Final = ledger_pb2.DELEGATION_RIGHT_RELEASE
_RIGHTS: Final = {
    trust_pb2.ROLE_NODE: frozenset({SHARING, RELEASE}),
    trust_pb2.ROLE_OPERATOR: frozenset({RELEASE}),
}
"""What each role has to give; keys of other roles neither give nor take."""

Record = ledger_pb2.Delegations


def delegate(context: Context, signer: Signer, operation: ledger_pb2.Delegate) -> int:
    """Adds a key, or changes what it may; returns the height."""
    held = _own(context, signer, operation.revision)
    rights = list(operation.rights)
    require(bool(rights) and rights == sorted(set(rights)), "There are no rights, unsorted ones, or one twice.")
    require(set(rights) <= _RIGHTS[signer.body.role], f"{signer.body.subject} lacks some of these rights.")
    require(len(operation.delegate) == 32, "The delegate is not a key id of 32 bytes.")
    require(operation.delegate != signer.key_id, f"{signer.body.subject} may do this already.")
    left = operation.until_ms - context.time_ms
    require(0 < left <= LONGEST_MS, "The delegation does not end in the future, or after more than a year.")
    taker = context.node(operation.delegate)
    if taker is None:
        raise Refused(Reason.UnknownSigner, f"The delegate {operation.delegate.hex()[:16]} is not enrolled.")
    if taker.body.role not in _RIGHTS:
        raise Refused(Reason.RoleForbidden, f"{taker.body.subject} is neither a node nor an operator.")
    entry = ledger_pb2.Delegation(
        delegate=operation.delegate, rights=rights, until_ms=operation.until_ms, height=context.height
    )
    others = _live(context, held, operation.delegate)
    if len(others) >= LIVE:
        raise Refused(Reason.TooManyDelegates, f"{signer.body.subject} has {LIVE} delegates already.")
    return _put(context, signer, held, [*others, entry])


def revoke(context: Context, signer: Signer, operation: ledger_pb2.Revoke) -> int:
    """Takes a key out; returns the height."""
    held = _own(context, signer, operation.revision)
    if all(each.delegate != operation.delegate for each in held.delegations):
        text = f"{signer.body.subject} has no delegate {operation.delegate.hex()[:16]}."
        raise Refused(Reason.NotDelegated, text)
    return _put(context, signer, held, _live(context, held, operation.delegate))


def granted(context: Context, owner: bytes, signer: Signer, right: ledger_pb2.DelegationRight) -> bool:
    """Whether the owner lets this signer do it, at block time."""
    held = read(context.state, keys.delegations(owner), Record)
    if held is None or signer.body.role not in _RIGHTS:
        return False
    mine = [each for each in _live(context, held) if each.delegate == signer.key_id]
    return any(right in each.rights for each in mine)


def _own(context: Context, signer: Signer, revision: int) -> Record:
    if signer.body.role not in _RIGHTS:
        raise Refused(Reason.RoleForbidden, f"{signer.body.subject} has no rights to delegate.")
    held = read(context.state, keys.delegations(signer.key_id), Record) or Record()
    if held.revision != revision:
        text = f"{signer.body.subject}'s delegations are at revision {held.revision}, not {revision}."
        raise Refused(Reason.RevisionConflict, text)
    return held


def _live(context: Context, held: Record, but: bytes = b"") -> list[ledger_pb2.Delegation]:
    """Those that have not ended at block time, without one delegate's."""
    return [each for each in held.delegations if each.until_ms > context.time_ms and each.delegate != but]


def _put(context: Context, signer: Signer, held: Record, entries: list[ledger_pb2.Delegation]) -> int:
    """The revision goes on for ever, also when nothing is left: an old Delegate must not come back after a Revoke."""
    new = Record(revision=held.revision + 1, owner=signer.key_id)
    new.delegations.extend(sorted(entries, key=lambda each: each.delegate))
    context.put(keys.delegations(signer.key_id), new)
    return context.height
