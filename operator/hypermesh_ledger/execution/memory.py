"""CommitMemory and ProveMemory, and how much of a memory may be reserved: no more than was shown of it.

    CommitMemory in block h → block h + 1: was it in time? → its seed → ProveMemory → MemoryTicket (so many bytes shown)
    RegisterAsset, UpdateAsset: capacity ≤ reserved + available        Allocate: amount ≤ available
    available = shown by the newest ticket, while it is fresh, − granted since

- The time of a block is that at which the block before was agreed (CometBFT's BFT time). So the deadline runs from the
  time of the block after the epoch's first, when the challenge was known, to that of the block after the commitment's,
  when the commitment was there; only then its seed is drawn.
- All that is granted since counts, also when it was released: what a tenant gave back was not shown. And it counts from
  a minute before the ticket's epoch began: a node that delivers late could have shown what it had promised already.
- Nothing here concerns Release and RetireAsset. They need the four tickets that all assets need, of any age or none.
- The asset's id must follow from the node's key, so that nobody proves in another's name; a node has few memories, so
  that made-up ones can't fill the state. A record goes only when no asset depends on it.

A chain without memory parameters takes neither operation and asks for nothing: its state has no such records.
"""

from __future__ import annotations

from typing import Final

from hypermesh.digests import DIGEST_BYTES, digest, u64
from hypermesh.operations import asset_id, canonical
from hypermesh.proofs.challenges import challenge, memory_owner
from hypermesh.proofs.memory import MAX_BLOCKS, shown_bytes
from hypermesh.proofs.tickets import memory_ticket
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Proof
from hypermesh_ledger.execution.context import Context, Signer, read, require, require_role
from hypermesh_ledger.state import Fork, Reader

MAX_MEMORIES: Final = 16
"""Of one node: one for each NUMA node of large machines, and some that were replaced."""
DELIVERY_MS: Final = 60_000
"""A tenant whose region isn't there after so long knows that its owner does not deliver."""
_RECENT_MS: Final = 5_000


def commit_memory(context: Context, signer: Signer, operation: ledger_pb2.CommitMemory) -> int:
    """Returns the height of the commitment (an earlier one for the same commitment again)."""
    require_role(signer, trust_pb2.ROLE_NODE, "committing memory")
    asked, commitment, node = _asked(context), operation.commitment, signer.key_id
    lengths = len(commitment.asset), len(commitment.root)
    require(lengths == (DIGEST_BYTES, DIGEST_BYTES), "The commitment's asset or root isn't 32 bytes.")
    most = MAX_BLOCKS * asked.block_kib * 1024 // asked.slab_bytes
    require(0 < commitment.slabs <= most, f"{commitment.slabs} slabs of memory; 1 to {most} can be proven.")
    require(0 < len(operation.hardware_id) <= 253, "The hardware id is not 1 to 253 characters long.")
    if commitment.asset != asset_id(node, ledger_pb2.ASSET_TYPE_MEMORY, operation.hardware_id):
        text = f"Asset id {commitment.asset.hex()[:16]} does not follow from node, memory and hardware id."
        raise Refused(Reason.IdentifierWrong, text)
    now = context.epoch.number
    if operation.epoch != now:
        text = f"The commitment is for epoch {operation.epoch}; now is {now}."
        raise Refused(Reason.EpochWrong, text)
    key = keys.memory(node, commitment.asset)
    held = read(context.state, key, ledger_pb2.MemoryRecord)
    if held is not None and held.epoch == now:
        if held.commitment == commitment:
            return held.height
        raise Refused(Reason.AlreadyCommitted, f"{signer.body.subject} committed other answers of it for this epoch.")
    elapsed = _elapsed(context.state, context.epoch, context.time_ms)
    if elapsed > asked.deadline_ms:
        text = f"The commitment came {elapsed} ms after the challenge was known; {asked.deadline_ms} are allowed."
        raise Refused(Reason.MemoryLate, text)
    if held is None:
        _make_room(context, node)
        held = ledger_pb2.MemoryRecord(node=node)
    _enter(held.grants, context.epoch)
    held.commitment.CopyFrom(commitment)
    held.epoch, held.height, held.before = now, context.height, held.grants.before
    held.seed, held.late = b"", False
    context.put(key, held)
    context.state.put(keys.memory_open(node, commitment.asset), keys.PRESENT)
    return context.height


def settle(
    state: Fork,
    genesis: ledger_pb2.Genesis,
    before: ledger_pb2.Epoch,
    epoch: ledger_pb2.Epoch,
    time_ms: int,
    block_hash: bytes,
) -> None:
    """At the beginning of a block, `before` being the epoch of the block before: its commitments get their seed, or
    came late; and when it was its epoch's first, that is when the challenge was known."""
    if before.number == epoch.number and _asked_in(state)[0] != epoch.number:
        state.put(keys.MEMORY_ASKED, u64(epoch.number) + u64(time_ms))
    for opened in [key for key, _ in state.scan(keys.MEMORY_OPEN)]:
        state.delete(opened)
        key = keys.MEMORY + opened[len(keys.MEMORY_OPEN) :]
        held = read(state, key, ledger_pb2.MemoryRecord)
        if held is None:
            raise ValueError(f"state has an open commitment but no memory {key.hex()}")
        if held.epoch != epoch.number or _elapsed(state, epoch, time_ms) > genesis.proofs.memory.deadline_ms:
            held.late = True
        else:
            held.seed = digest("memory/seed", block_hash, held.node, held.commitment.asset, u64(held.epoch))
        state.put(key, canonical(held))


def prove_memory(context: Context, signer: Signer, operation: ledger_pb2.ProveMemory) -> int:
    """Verifies the proof and records the ticket; returns the height."""
    require_role(signer, trust_pb2.ROLE_NODE, "proving memory")
    _asked(context)
    node, epoch, asset = signer.key_id, operation.epoch, operation.proof.asset
    require(len(asset) == DIGEST_BYTES, "The proof's asset isn't 32 bytes.")
    beacon = context.state.get(keys.beacon(epoch))
    if beacon is None or epoch > context.epoch.number:
        text = f"No proof is accepted for epoch {epoch}; now is {context.epoch.number}."
        raise Refused(Reason.EpochWrong, text)
    held = read(context.state, keys.memory(node, asset), ledger_pb2.MemoryRecord)
    if held is None or held.epoch != epoch:
        text = f"{signer.body.subject} committed no answers of memory {asset.hex()[:16]} for epoch {epoch}."
        raise Refused(Reason.NotCommitted, text)
    if held.ticket.epoch >= epoch:
        raise Refused(Reason.AlreadyProven, f"Memory {asset.hex()[:16]} has the ticket of epoch {epoch}.")
    if held.late:
        text = f"The answers of memory {asset.hex()[:16]} for epoch {epoch} were committed after the deadline."
        raise Refused(Reason.MemoryLate, text)
    if not held.seed:
        raise Refused(Reason.NotCommitted, f"The seed for memory {asset.hex()[:16]} is drawn by the next block.")
    asked = challenge(context.chain_id, beacon, node, epoch)
    parameters, commitment = canonical(context.genesis.proofs), canonical(held.commitment)
    space, owner = proofs_pb2.PROOF_KIND_SPACE, memory_owner(context.chain_id, node)
    context.verify(Proof(space, asked, owner, canonical(operation.proof), parameters, held.seed, commitment))
    _win(context, held, asked)
    context.put(keys.memory(node, asset), held)
    return context.height


def require_shown(context: Context, node: bytes, registration: ledger_pb2.RegisterAsset, amount: int) -> None:
    """Raises Refused unless so many bytes of a memory are shown and not granted since; other assets need none."""
    if not _concerned(context, registration):
        return
    name, held = registration.name, _record(context, node, registration)
    if held is None or not held.HasField("ticket"):
        raise Refused(Reason.MemoryTicketMissing, f"Nothing of {name} was shown yet.")
    if held.ticket.epoch + context.genesis.proofs.grace_epochs < context.epoch.number:
        text = f"What was shown of {name} is of epoch {held.ticket.epoch}; now is {context.epoch.number}."
        raise Refused(Reason.MemoryTicketStale, text)
    available = max(0, held.ticket.shown - held.grants.spent)
    if amount > available:
        text = f"{held.ticket.shown} bytes of {name} were shown free, {held.grants.spent} are granted since"
        raise Refused(Reason.MemoryNotShown, f"{text}: {available} are left, {amount} are asked for.")


def grant(context: Context, node: bytes, registration: ledger_pb2.RegisterAsset, amount: int) -> None:
    """Count what is reserved now. Raises Refused as require_shown does."""
    if not _concerned(context, registration):
        return
    require_shown(context, node, registration, amount)
    held = _record(context, node, registration)
    if held is None:
        raise ValueError(f"memory {registration.asset_id.hex()} was shown but has no record")
    _enter(held.grants, context.epoch)
    held.grants.spent += amount
    time, recent = context.time_ms // _RECENT_MS, held.grants.recent
    while recent and not _within(recent[0], context.time_ms - DELIVERY_MS):
        del recent[0]
    if recent and recent[-1].time == time:
        recent[-1].amount += amount
    else:
        recent.add(time=time, amount=amount)
    context.put(keys.memory(node, registration.asset_id), held)


def _asked(context: Context) -> proofs_pb2.MemoryParameters:
    proofs = context.genesis.proofs
    require(proofs.HasField("memory"), "This chain asks for no proof of memory.")
    return proofs.memory


def _concerned(context: Context, registration: ledger_pb2.RegisterAsset) -> bool:
    return context.genesis.proofs.HasField("memory") and registration.type == ledger_pb2.ASSET_TYPE_MEMORY


def _record(context: Context, node: bytes, registration: ledger_pb2.RegisterAsset) -> ledger_pb2.MemoryRecord | None:
    return read(context.state, keys.memory(node, registration.asset_id), ledger_pb2.MemoryRecord)


def _asked_in(state: Reader) -> tuple[int, int]:
    """The newest epoch whose challenge was known, and since when; (0, 0) before the first."""
    value = state.get(keys.MEMORY_ASKED) or bytes(16)
    return int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big")


def _elapsed(state: Reader, epoch: ledger_pb2.Epoch, time_ms: int) -> int:
    """Milliseconds since the epoch's challenge was known; 0 in its first block."""
    number, since_ms = _asked_in(state)
    return time_ms - since_ms if number == epoch.number else 0


def _enter(grants: ledger_pb2.MemoryGrants, epoch: ledger_pb2.Epoch) -> None:
    """The first touch in an epoch: what was spent before the moment that this epoch's tickets vouch for."""
    if grants.epoch == epoch.number:
        return
    late = sum(each.amount for each in grants.recent if _within(each, epoch.started_ms - DELIVERY_MS))
    grants.epoch, grants.before = epoch.number, grants.spent - late


def _within(recent: ledger_pb2.MemoryGrants.Recent, since_ms: int) -> bool:
    """Whether any of it may have been granted after that moment."""
    return (recent.time + 1) * _RECENT_MS > since_ms


def _win(context: Context, held: ledger_pb2.MemoryRecord, asked: bytes) -> None:
    """The new ticket; grants are counted from its moment on."""
    parameters, slabs = context.genesis.proofs.memory, held.commitment.slabs
    held.ticket.CopyFrom(
        ledger_pb2.MemoryTicket(
            epoch=held.epoch,
            hash=memory_ticket(held.node, held.epoch, asked, held.commitment),
            issued_ms=context.time_ms,
            filled=slabs * parameters.slab_bytes,
            shown=shown_bytes(slabs, parameters),
        )
    )
    held.grants.spent -= held.before
    held.grants.before -= held.before
    held.before = 0


def _make_room(context: Context, node: bytes) -> None:
    """Forget this node's memories that no asset depends on and whose proofs are over; refuse when too many stay."""
    oldest = context.epoch.number - context.genesis.proofs.grace_epochs
    left = 0
    for key, value in list(context.state.scan(keys.memories(node))):
        held = ledger_pb2.MemoryRecord.FromString(value)
        registered = read(context.state, keys.asset(held.commitment.asset), ledger_pb2.AssetRecord)
        gone = registered is None or registered.retired
        if gone and held.epoch < oldest:
            context.state.delete(key)
        else:
            left += 1
    require(left < MAX_MEMORIES, f"The node has {left} memories already, {MAX_MEMORIES} are allowed.")
