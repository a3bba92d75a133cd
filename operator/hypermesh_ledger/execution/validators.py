"""Who signs blocks: seats by certificate, equal power, never by coins. See docs/decisions/0030-validators.md.

    JoinValidator -> WAITING -> (enough for a set of four) -> ACTIVE -> LeaveValidator | absence | lie -> gone

As long as nobody joins, the state holds nothing of this, and a chain of one validator is as it always was. A set has
one validator or at least four: two or three would stop with any one of them, and tolerate no liar.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from hypermesh.digests import digest
from hypermesh.operations import VALIDITY_MS, canonical
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import behaviour, scores
from hypermesh_ledger.execution.context import Context, Lie, Signer, Vote, read, require, require_role
from hypermesh_ledger.state import Fork, Reader

POWER: Final = 10
"""Of every validator; what the genesis gives its first one."""
LEAST: Final = 4
"""The smallest set, after the lone first validator, that goes on without one of its members."""
TRUST_BOUND: Final = 4_000
"""What the first score is after one absence: a validator may come back once at once, then it waits or has earned more.
Below the first score, since who is no validator yet has no way to earn."""
CANDIDACY_MS: Final = 60_000
"""A candidate that does not ask again within this time is not counted: it may be gone."""
WINDOW_BLOCKS: Final = 1_000
WINDOW_MS: Final = 600_000
SEEN_BLOCKS: Final = 10
"""Who signed fewer blocks than these of a window (which has both lengths at least) is absent: missed more than 99 %.
Blocks go on with the first two thirds of the signatures, so who is far away misses many; but each block that it
proposes itself carries its signature."""
PUBLIC_BYTES: Final = 1952
SIGNATURE_BYTES: Final = 3309

_WAITING, _ACTIVE = ledger_pb2.VALIDATOR_STATE_WAITING, ledger_pb2.VALIDATOR_STATE_ACTIVE
_LEFT, _ABSENT = ledger_pb2.VALIDATOR_STATE_LEFT, ledger_pb2.VALIDATOR_STATE_ABSENT
_CONDEMNED, _EXPELLED = ledger_pb2.VALIDATOR_STATE_CONDEMNED, ledger_pb2.VALIDATOR_STATE_EXPELLED

Record = ledger_pb2.ValidatorRecord


@dataclass(frozen=True, slots=True)
class Power:
    """A consensus key's new power; 0 takes it out."""

    consensus_key: bytes
    power: int


def address_of(consensus_key: bytes) -> bytes:
    """20 bytes: what CometBFT calls a validator."""
    return hashlib.sha256(consensus_key).digest()[:20]


def seat_of(body: trust_pb2.CertificateBody) -> bytes:
    """32 bytes: one vote for each name that TrustChain certified, however many keys it enrols."""
    return digest("validator/seat", body.cluster_uid.encode(), body.subject.encode())


def possession(chain_id: str, key_id: bytes) -> bytes:
    """What the consensus key signs to show that who joins holds it."""
    return digest("validator/possession", chain_id.encode(), key_id)


def seats(state: Reader) -> list[Record]:
    """All records in the order of their seats."""
    return [Record.FromString(value) for _, value in state.scan(keys.VALIDATOR)]


def holders(state: Reader) -> list[Record]:
    """Seats with a vote; none while a lone validator has not made its seat known."""
    return [each for each in seats(state) if holds(each)]


def powers(base: Reader, fork: Fork) -> list[Power]:
    """What a block changed, in the order of the keys."""
    if not any(key.startswith(keys.VALIDATOR) for key in fork.writes):
        return []
    before = {each.consensus_key for each in seats(base) if holds(each)}
    after = {each.consensus_key for each in seats(fork) if holds(each)}
    gone, new = [Power(key, 0) for key in before - after], [Power(key, POWER) for key in after - before]
    return sorted(gone + new, key=lambda each: each.consensus_key)


# -- operations --------------------------------------------------------------------------------------------------


def join_validator(context: Context, signer: Signer, operation: ledger_pb2.JoinValidator) -> int:
    """Returns the height at which the seat became active, or was put among those who wait."""
    require_role(signer, trust_pb2.ROLE_VALIDATOR, "joining the validators")
    _check_possession(context, signer, operation)
    held, address = _own_seat(context, signer), address_of(operation.consensus_key)
    if held.state in (_CONDEMNED, _EXPELLED) or context.state.get(keys.evidence(address)) is not None:
        raise Refused(Reason.ValidatorExpelled, f"{signer.body.subject} was caught lying; evidence is in the state.")
    if context.state.get(keys.EXTENSIONS) is not None and not operation.extends_votes:
        text = f"{signer.body.subject} does not extend votes, and this chain's validators do."
        raise Refused(Reason.ExtensionsNeeded, text)
    score = behaviour.rested(context, signer)
    if score < TRUST_BOUND:
        text = f"{signer.body.subject} has a trust score of {score}; validators need {TRUST_BOUND}."
        raise Refused(Reason.TrustTooLow, text)
    every = seats(context.state)
    if any(each.consensus_key == operation.consensus_key for each in every if each.seat != held.seat):
        raise Refused(Reason.ConsensusKeyTaken, f"{signer.body.subject}'s consensus key is that of another seat.")
    if (held.state, held.holder, held.consensus_key) == (_ACTIVE, signer.key_id, operation.consensus_key):
        return _extend(context, held, operation)
    if held.state in (_LEFT, _ABSENT) and context.time_ms <= held.time_ms + VALIDITY_MS:
        raise Refused(Reason.SeatResting, f"{signer.body.subject} left {context.time_ms - held.time_ms} ms ago.")
    active = held.state == _ACTIVE or _founder(context, every, address)
    held.holder, held.subject, held.consensus_key = signer.key_id, signer.body.subject, operation.consensus_key
    held.height, held.time_ms, held.extends_votes = context.height, context.time_ms, operation.extends_votes
    behaviour.seated(context, signer, score)
    if active:
        _activate(context.state, held, context.height)
    else:
        held.state = _WAITING
        _put(context.state, held)
        _promote(context)
    return context.height


def leave_validator(context: Context, signer: Signer) -> int:
    """Returns the height."""
    require_role(signer, trust_pb2.ROLE_VALIDATOR, "leaving the validators")
    held = _own_seat(context, signer)
    if held.holder != signer.key_id or held.state not in (_WAITING, _ACTIVE):
        raise Refused(Reason.NotValidator, f"{signer.body.subject} is no validator with this key.")
    if held.state == _ACTIVE and not _dispensable(held, seats(context.state), _signers(context.votes), LEAST):
        raise Refused(Reason.TooFewValidators, f"Without {signer.body.subject} too few could make blocks.")
    _retire(context.state, held, _LEFT, context.height, context.time_ms)
    return context.height


def _extend(context: Context, held: Record, operation: ledger_pb2.JoinValidator) -> int:
    """A validator of an older program was started with one that extends votes."""
    if not operation.extends_votes or held.extends_votes:
        return held.joined_height
    held.extends_votes, held.height = True, context.height
    _put(context.state, held)
    return context.height


def _check_possession(context: Context, signer: Signer, operation: ledger_pb2.JoinValidator) -> None:
    sizes = len(operation.consensus_key), len(operation.possession)
    require(sizes == (PUBLIC_BYTES, SIGNATURE_BYTES), f"ML-DSA-65 key and signature of {sizes} bytes.")
    try:
        public = MLDSA65PublicKey.from_public_bytes(operation.consensus_key)
        public.verify(operation.possession, possession(context.chain_id, signer.key_id))
    except (InvalidSignature, ValueError) as error:
        text = f"{signer.body.subject} does not show that it holds the consensus key."
        raise Refused(Reason.PossessionUnproven, text) from error


def _own_seat(context: Context, signer: Signer) -> Record:
    seat = seat_of(signer.body)
    return read(context.state, keys.validator(seat), Record) or Record(seat=seat)


def _founder(context: Context, every: Sequence[Record], address: bytes) -> bool:
    """Whether the key signs blocks already, from the genesis on. Raises Refused while one that does is not known.

    Only when every power is known can sets be counted; so the genesis' validators come first.
    """
    known = {address_of(each.consensus_key) for each in every}
    unknown = [vote.address for vote in context.votes if vote.address not in known]
    if address in unknown:
        return True
    if unknown or not any(map(holds, every)):
        raise Refused(Reason.FounderUnknown, "The first validator has not made its seat known yet.")
    return False


def _promote(context: Context) -> None:
    every = seats(context.state)
    fresh = [each for each in every if each.state == _WAITING and context.time_ms - each.time_ms <= CANDIDACY_MS]
    if sum(map(holds, every)) + len(fresh) >= LEAST:
        for each in fresh:
            _activate(context.state, each, context.height)


def _activate(state: Fork, record: Record, height: int) -> None:
    record.state, record.joined_height, record.height = _ACTIVE, height, height
    record.signed_blocks = record.missed_blocks = 0
    _put(state, record)


# -- every block -------------------------------------------------------------------------------------------------


def attend(state: Fork, height: int, time_ms: int, votes: Sequence[Vote], lies: Iterable[Lie]) -> None:
    """Keep evidence, count who was there, take out liars and, at the end of a window, the absent.

    Nobody is taken out whose going would leave too few: a liar goes when more than two thirds of the others signed
    the last block, an absent one when besides four others remain. Else it is tried again at the next block, or window.
    """
    if not seats(state):
        return
    present = _signers(votes)
    for lie in lies:
        _condemn(state, lie, height)
    for each in seats(state):
        if each.state == _CONDEMNED and _dispensable(each, seats(state), present, 1):
            _retire(state, each, _EXPELLED, height, time_ms)
    for each in seats(state):
        if each.state == _ACTIVE and each.signed_blocks < SEEN_BLOCKS and address_of(each.consensus_key) in present:
            each.signed_blocks += 1
            _put(state, each)
    window = read(state, keys.ATTENDANCE, ledger_pb2.Attendance)
    if window is None or _over(window, height, time_ms):
        if window is not None:
            _remove_absent(state, window, present, height, time_ms)
        fresh = ledger_pb2.Attendance(from_height=height, from_ms=time_ms)
        state.put(keys.ATTENDANCE, canonical(fresh))


def _over(window: ledger_pb2.Attendance, height: int, time_ms: int) -> bool:
    return height - window.from_height >= WINDOW_BLOCKS and time_ms - window.from_ms >= WINDOW_MS


def _condemn(state: Fork, lie: Lie, height: int) -> None:
    if state.get(keys.evidence(lie.address)) is not None:
        return
    evidence = ledger_pb2.Evidence(
        address=lie.address, kind=lie.kind, height=lie.height, time_ms=lie.time_ms, recorded_height=height
    )
    state.put(keys.evidence(lie.address), canonical(evidence))
    for each in seats(state):
        if address_of(each.consensus_key) == lie.address:
            each.state = _CONDEMNED if holds(each) else _EXPELLED
            each.height = height
            _put(state, each)
            scores.apply(state, each.holder, scores.Event.LIED)


def _remove_absent(
    state: Fork, window: ledger_pb2.Attendance, present: frozenset[bytes], height: int, time_ms: int
) -> None:
    for each in seats(state):
        if each.state != _ACTIVE:
            continue
        whole = each.joined_height <= window.from_height
        if whole and each.signed_blocks < SEEN_BLOCKS and _dispensable(each, seats(state), present, LEAST):
            each.missed_blocks = height - window.from_height - each.signed_blocks
            _retire(state, each, _ABSENT, height, time_ms)
            scores.apply(state, each.holder, scores.Event.ABSENT)
        elif each.signed_blocks:
            if whole and each.signed_blocks >= SEEN_BLOCKS:
                scores.apply(state, each.holder, scores.Event.ATTENDED)
            each.signed_blocks = 0
            _put(state, each)


def _dispensable(record: Record, every: Sequence[Record], present: frozenset[bytes], least: int) -> bool:
    """Whether the others are at least `least`, and more than two thirds of them signed the last block."""
    rest = [each for each in every if holds(each) and each.seat != record.seat]
    there = sum(address_of(each.consensus_key) in present for each in rest)
    return len(rest) >= least and 3 * there > 2 * len(rest)


def _retire(state: Fork, record: Record, to: ledger_pb2.ValidatorState, height: int, time_ms: int) -> None:
    record.state, record.height, record.time_ms = to, height, time_ms
    _put(state, record)


def _signers(votes: Iterable[Vote]) -> frozenset[bytes]:
    return frozenset(vote.address for vote in votes if vote.signed)  # asked for membership only, never iterated


def holds(record: Record) -> bool:
    """Whether it has power."""
    return record.state in (_ACTIVE, _CONDEMNED)


def _put(state: Fork, record: Record) -> None:
    state.put(keys.validator(record.seat), canonical(record))
