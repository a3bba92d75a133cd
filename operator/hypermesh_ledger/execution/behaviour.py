"""Which events of trust scores happen when: enrolment, assets, proofs, leases, and epochs that went by in silence.

    EnrolNode, RegisterAsset, RetireAsset, Prove, lease ends -> record
    every block: identities in the index whose first unaccounted epoch is closed -> missed -> index, at a later epoch

Silence needs no operation, so the index of who owes proofs is walked, PER_BLOCK entries at most in a block; who falls
behind is accounted for all its epochs at once, with the same result (unless the ledger stands meanwhile). A silent
identity leaves the index at score 0. An epoch is closed when no proof for it is accepted any more. Epochs that the
ledger itself stood through are forgiven.
"""

from __future__ import annotations

from typing import Final

from hypermesh.digests import u64
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import scores
from hypermesh_ledger.execution.context import Context, Signer, read
from hypermesh_ledger.execution.scores import Event
from hypermesh_ledger.state import Fork, Reader

PER_BLOCK: Final = 500
"""Silent identities accounted for in one block at most."""
KEYS: Final = 4
"""Keys of one identity that show its score; an older one shows 0."""
REST: Final = 10
"""What an epoch of waiting gives back to a validator that was removed for absence, up to the first score."""
COMPUTES: Final = frozenset({ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_GPU})
_WORK: Final = proofs_pb2.PROOF_KIND_WORK
_SCORED: Final = frozenset({trust_pb2.ROLE_NODE, trust_pb2.ROLE_VALIDATOR})


# -- operations --------------------------------------------------------------------------------------------------


def enrolled(context: Context, body: trust_pb2.CertificateBody, key_id: bytes, held: int | None) -> int:
    """The score that a newly enrolled certificate's node record shows. held: what it showed before."""
    first = context.genesis.initial_trust_score
    if not context.genesis.trust_rules:
        return first if held is None else held
    identity = scores.identity_of(body)
    moved = _moved(context, key_id, identity)
    if body.role not in _SCORED:
        return first if held is None else held
    record = read(context.state, keys.trust(identity), scores.Record)
    record = record or scores.Record(score=min(first, scores.MAX_SCORE))
    own = next((each for each in record.keys if each.key_id == key_id), moved)
    others = [each for each in record.keys if each.key_id != key_id]
    for each in others[: -(KEYS - 1)]:
        scores.show(context.state, each.key_id, 0)
    newest = [*others[-(KEYS - 1) :], own]
    del record.keys[:]
    record.keys.extend(newest)
    scores.save(context.state, identity, record, record.due_epoch or context.epoch.number + 1)
    return scores.shown(record.score)


def _moved(context: Context, key_id: bytes, identity: bytes) -> ledger_pb2.TrustKey:
    """What a key has registered, taken out of the record of another identity that it was certified for before."""
    found = scores.find(context.state, key_id)
    if found is None or found[0] == identity:
        return ledger_pb2.TrustKey(key_id=key_id)
    before, record = found
    own = [each for each in record.keys if each.key_id == key_id]
    others = [each for each in record.keys if each.key_id != key_id]
    del record.keys[:]
    record.keys.extend(others)
    scores.save(context.state, before, record, record.due_epoch)
    return own[0] if own else ledger_pb2.TrustKey(key_id=key_id)


def counted(context: Context, node: bytes, asset: ledger_pb2.RegisterAsset, change: int) -> None:
    """A node registered an asset (change 1) or retired it (-1).

    With its first one it owes the epoch under way, unless that is proven; with its last one, what it owes is accounted
    for: so an asset that comes and goes escapes no miss.
    """
    found = scores.find(context.state, node)
    if found is None:
        return
    identity, record = found
    now = context.epoch.number
    for each in record.keys:
        if each.key_id == node:
            each.assets = max(each.assets + change, 0)
            if asset.type in COMPUTES:
                each.devices = max(each.devices + change, 0)
    if not scores.owes(record):
        record.score = scores.steps(record.score, Event.MISSED, _missed(context.state, record, now))
    scores.save(context.state, identity, record, record.due_epoch or max(now, record.proven_epoch + 1))


def proven(context: Context, signer: Signer, epoch: int, seed: ledger_pb2.WorkSeed) -> None:
    """A node won the tickets of an epoch: counted once, for the newest key, when no computing asset is left out."""
    found = scores.find(context.state, signer.key_id)
    if found is None:
        return
    identity, record = found
    own = record.keys[-1]
    whole = _computing(context, signer.key_id, seed) >= own.devices
    if own.key_id != signer.key_id or not whole or epoch <= record.proven_epoch:
        return
    record.score = scores.steps(record.score, Event.MISSED, _missed(context.state, record, epoch - 1))
    if own.assets:
        record.score = scores.step(record.score, Event.PROVEN)
    record.proven_epoch = epoch
    scores.save(context.state, identity, record, max(record.due_epoch, epoch + 1))


def rested(context: Context, signer: Signer) -> int:
    """The score by which a candidate for the validators is judged: waiting makes good for absence, slowly."""
    score = signer.record.trust_score
    found = scores.find(context.state, signer.key_id)
    if found is None or not found[1].absent_epoch:
        return score
    waited = max(context.epoch.number - found[1].absent_epoch, 0)
    return max(score, min(context.genesis.initial_trust_score, found[1].score + REST * waited))


def seated(context: Context, signer: Signer, score: int) -> None:
    """Whoever joins the validators starts with the score that it was judged by."""
    found = scores.find(context.state, signer.key_id)
    if found is None or not found[1].absent_epoch:
        return
    identity, record = found
    record.score, record.absent_epoch = max(record.score, score), 0
    scores.save(context.state, identity, record, record.due_epoch or context.epoch.number + 1)


def _computing(context: Context, node: bytes, seed: ledger_pb2.WorkSeed) -> int:
    """How many of the committed devices are CPUs and GPUs that the node has registered."""
    assets = (read(context.state, keys.asset(each.device), ledger_pb2.AssetRecord) for each in seed.commitments)
    ours = (each for each in assets if each is not None and each.node == node and not each.retired)
    return sum(each.registration.type in COMPUTES for each in ours)


# -- leases ------------------------------------------------------------------------------------------------------


def lease_over(state: Fork, held: ledger_pb2.AllocationRecord, device: bytes, time_ms: int) -> None:
    """A lease ended, or its tenant released it. Each kind counts once an epoch: more leases are no more trust.

    device: the asset's work device. A lease shorter than an epoch shows nothing; an outage of the ledger neither.
    """
    found = scores.find(state, held.node)
    genesis = read(state, keys.GENESIS, ledger_pb2.Genesis)
    if found is None or genesis is None:
        return
    identity, record = found
    now = (read(state, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()).number
    grace, long = genesis.proofs.grace_epochs, time_ms - held.granted_ms >= genesis.proofs.epoch_ms
    if _proves(state, held.node, device, range(now, max(now - grace, 0) - 1, -1)):
        if not long or record.served_epoch == now:
            return
        record.served_epoch, event = now, Event.SERVED
    else:
        if _forgiven(state) + grace >= now or record.abandoned_epoch == now:
            return
        record.abandoned_epoch, event = now, Event.ABANDONED
    record.score = scores.step(record.score, event)
    scores.save(state, identity, record, record.due_epoch or now + 1)


def _proves(state: Reader, node: bytes, device: bytes, epochs: range) -> bool:
    """Whether a node's device has a work ticket of one of these epochs. No scan: a block may end many leases."""
    return any(state.get(keys.ticket(_WORK, node, device, each)) is not None for each in epochs)


# -- every block -------------------------------------------------------------------------------------------------


def turn(state: Fork, before: int, epoch: ledger_pb2.Epoch, epoch_ms: int) -> None:
    """A block began an epoch, after the one numbered `before`; forgive what the ledger stood through.

    When it begins in the second half of its time, or numbers are left out, then this epoch and those before were cut.
    """
    if epoch.number == before:
        return
    late = epoch.started_ms - epoch.number * epoch_ms > epoch_ms // 2
    if late or epoch.number != before + 1:
        state.put(keys.FORGIVEN, u64(epoch.number))


def sweep(state: Fork, now: int) -> None:
    """Account for silence: who owes proofs since an epoch that is closed. now: number of the epoch under way."""
    closed = now - 2  # proofs are accepted for the epoch under way and the one before
    elapsed: list[bytes] = []
    for key, _ in state.scan(keys.OWED):
        if keys.index_time(key, keys.OWED) > closed or len(elapsed) == PER_BLOCK:
            break
        elapsed.append(keys.index_id(key, keys.OWED))
    for identity in elapsed:
        record = read(state, keys.trust(identity), scores.Record)
        if record is None:
            raise ValueError(f"state has no trust record of identity {identity.hex()} that owes proofs")
        record.score = scores.steps(record.score, Event.MISSED, _missed(state, record, closed))
        scores.save(state, identity, record, closed + 1)


def _missed(state: Reader, record: scores.Record, last: int) -> int:
    """Epochs up to `last` that it owed and that are not forgiven."""
    if not record.due_epoch:
        return 0
    return max(last - max(record.due_epoch - 1, _forgiven(state)), 0)


def _forgiven(state: Reader) -> int:
    return int.from_bytes(state.get(keys.FORGIVEN) or b"", "big")
