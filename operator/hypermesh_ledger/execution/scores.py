"""Trust scores: what an identity's behaviour makes of its score. See docs/decisions/0051-trust-score.md.

    event -> step(score, event) -> TrustRecord of the identity -> NodeRecord.trust_score of its keys (whole hundreds)

An identity is (role, cluster, subject), as TrustChain certified it: a new key does not wash a score. A record is made
at enrolment where the genesis names trust rules; elsewhere there is none, and every event passes without effect.
Clients read, and rules judge by, the rounded score in the node's record: it changes seldom enough to be told to all.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from hypermesh.digests import digest
from hypermesh.operations import canonical
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.state import Fork, Reader

MAX_SCORE: Final = 10_000
SHOWN: Final = 100
"""Node records show whole hundreds: Allocations ask in percent, and every change of a node's record goes to all."""
GAIN: Final = 256
"""An epoch of proofs closes this fraction of the way to the top: 5,000 to 7,500 takes 184 epochs, to 9,000 440."""
MISS: Final = 64
"""A missed epoch takes this fraction away: a silent node halves its score in 45 epochs. Who proves a share p of its
epochs settles near p / (p + 4 (1 - p)): 95 of 100 for p = 0.99, 69 for 0.9, 20 for 0.5."""
ABANDON: Final = 16
ABSENCE: Final = 5

Record = ledger_pb2.TrustRecord


class Event(Enum):
    """What an identity did, or failed to do."""

    PROVEN = auto()
    """An epoch with the proofs of every CPU and GPU that the node has registered."""
    MISSED = auto()
    """An epoch without, while assets were registered."""
    SERVED = auto()
    """A lease that its tenant released, or that ended, with the node proving."""
    ABANDONED = auto()
    """A lease that ended, or was released by its tenant, while the node did not prove."""
    FAKED = auto()
    """Work that validators computed again, and that is not what the node had committed."""
    ATTENDED = auto()
    """A whole window in which a validator signed blocks."""
    ABSENT = auto()
    """A validator taken out because it signed next to nothing."""
    LIED = auto()
    """A validator that signed two blocks of one height."""


def step(score: int, event: Event) -> int:
    """The score after one event; 0 … MAX_SCORE, integers only."""
    match event:
        case Event.PROVEN | Event.SERVED | Event.ATTENDED:
            return score + _part(MAX_SCORE - score, GAIN)
        case Event.MISSED:
            return score - _part(score, MISS)
        case Event.ABANDONED:
            return score - _part(score, ABANDON)
        case Event.ABSENT:
            return score - _part(score, ABSENCE)
        case Event.FAKED:
            return score // 4
        case Event.LIED:
            return 0


def steps(score: int, event: Event, times: int) -> int:
    """The same event several times; ends early when nothing changes any more, so its cost is bounded."""
    for _ in range(times):
        before, score = score, step(score, event)
        if before == score:
            break
    return score


def _part(whole: int, divisor: int) -> int:
    """At least 1 of what is there, so that both ends are reached."""
    return max(whole // divisor, min(whole, 1))


# -- records -----------------------------------------------------------------------------------------------------


def identity_of(body: trust_pb2.CertificateBody) -> bytes:
    """32 bytes: whom a score belongs to, whatever keys it enrols."""
    role = int(body.role).to_bytes(1, "big")
    return digest("trust/identity", role, body.cluster_uid.encode(), body.subject.encode())


def shown(score: int) -> int:
    """What the node's record says of an exact score."""
    return score // SHOWN * SHOWN


def find(state: Reader, key_id: bytes) -> tuple[bytes, Record] | None:
    """Identity and record of an enrolled key; None where behaviour is not scored, or this key no longer speaks."""
    node = read(state, keys.node(key_id), ledger_pb2.NodeRecord)
    if node is None:
        return None
    identity = identity_of(trust_pb2.CertificateBody.FromString(node.certificate.body))
    record = read(state, keys.trust(identity), Record)
    return None if record is None else (identity, record)


def owes(record: Record) -> bool:
    """Whether proofs are owed: by the newest key, for whatever any of its keys has registered."""
    return record.score > 0 and any(each.assets for each in record.keys)


def save(state: Fork, identity: bytes, record: Record, due: int) -> None:
    """Write a changed record, its place in the index of who owes proofs, and the scores that its keys show.

    due: the first epoch not accounted for, in case it owes proofs at all.
    """
    held = read(state, keys.trust(identity), Record)
    owing = owes(record)
    if record.due_epoch != due or not owing:
        if record.due_epoch:
            state.delete(keys.owed(record.due_epoch, identity))
        record.due_epoch = due if owing else 0
    if record.due_epoch:
        state.put(keys.owed(record.due_epoch, identity), keys.PRESENT)
    state.put(keys.trust(identity), canonical(record))
    if held is not None and shown(held.score) != shown(record.score):
        for each in record.keys:
            show(state, each.key_id, shown(record.score))


def show(state: Fork, key_id: bytes, score: int) -> None:
    """Put a score into a key's record, which all followers of the ledger are told."""
    node = read(state, keys.node(key_id), ledger_pb2.NodeRecord)
    if node is not None and node.trust_score != score:
        node.trust_score = score
        state.put(keys.node(key_id), canonical(node))


def apply(state: Fork, key_id: bytes, event: Event) -> None:
    """One event of the identity behind an enrolled key. Nothing happens where behaviour is not scored."""
    found = find(state, key_id)
    if found is None:
        return
    identity, record = found
    epoch = read(state, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()
    record.score = step(record.score, event)
    if event is Event.ABSENT:
        record.absent_epoch = epoch.number
    save(state, identity, record, record.due_epoch or epoch.number + 1)
