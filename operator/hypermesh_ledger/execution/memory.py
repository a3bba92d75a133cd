"""CommitMemory and ProveMemory: how free memory wins its own space ticket of an epoch.

CommitMemory fixes the root of the walk within the deadline, counted in block time from the epoch's start, and gets a
seed drawn from its block; ProveMemory, in a later block, opens the steps that the seed draws. Each asset goes for
itself, so that a slow one costs no other's ticket. A chain without memory parameters takes neither.

The asset's id must follow from the node's key: else a node could win tickets in another's name or, with its own key id
for an asset, the ticket that only its plot may win.
"""

from __future__ import annotations

from typing import Final

from hypermesh.digests import DIGEST_BYTES, digest, u64
from hypermesh.operations import asset_id, canonical
from hypermesh.proofs.challenges import challenge
from hypermesh.proofs.tickets import memory_ticket
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Proof
from hypermesh_ledger.execution.context import Context, Signer, read, require, require_role
from hypermesh_ledger.execution.tickets import forget_gone, win

MAX_MEMORIES: Final = 64
"""Assets whose walks of one epoch a node may commit; who made up ids would else fill the state."""


def commit_memory(context: Context, signer: Signer, operation: ledger_pb2.CommitMemory) -> int:
    """Returns the height of the commitment (an earlier one for the same commitment again)."""
    require_role(signer, trust_pb2.ROLE_NODE, "committing memory")
    asked, commitment, node = _asked(context), operation.commitment, signer.key_id
    lengths = (len(commitment.asset), len(commitment.root))
    require(lengths == (DIGEST_BYTES, DIGEST_BYTES), "The commitment's asset or root isn't 32 bytes.")
    require(0 < len(operation.hardware_id) <= 253, "The hardware id is not 1 to 253 characters long.")
    if commitment.asset != asset_id(node, ledger_pb2.ASSET_TYPE_MEMORY, operation.hardware_id):
        text = f"Asset id {commitment.asset.hex()[:16]} does not follow from node, memory and hardware id."
        raise Refused(Reason.IdentifierWrong, text)
    registered = read(context.state, keys.asset(commitment.asset), ledger_pb2.AssetRecord)
    if operation.epoch != context.epoch.number:
        text = f"The commitment is for epoch {operation.epoch}; now is {context.epoch.number}."
        raise Refused(Reason.EpochWrong, text)
    held = read(context.state, keys.memory_seed(node, commitment.asset), ledger_pb2.MemorySeed)
    if held is not None and held.epoch == operation.epoch:
        if held.commitment == commitment:
            return held.height
        raise Refused(Reason.AlreadyCommitted, f"{signer.body.subject} committed another walk for this epoch.")
    late = context.time_ms - context.epoch.started_ms - asked.deadline_ms
    if late > 0:
        text = f"The walk is committed {late} ms after the {asked.deadline_ms} ms that the epoch leaves for it."
        raise Refused(Reason.MemoryWalkLate, text)
    if commitment.slabs < asked.min_slabs:
        text = f"{commitment.slabs} slabs are filled, {asked.min_slabs} of {asked.slab_bytes} bytes are needed."
        raise Refused(Reason.MemoryTooSmall, text)
    if registered is not None and commitment.slabs * asked.slab_bytes > registered.registration.capacity:
        text = f"{commitment.slabs} slabs are more than {registered.registration.name} has."
        raise Refused(Reason.Malformed, text)
    _make_room(context, node, operation.epoch)
    seed = digest("memory/seed", context.block_hash, node, commitment.asset, u64(operation.epoch))
    context.put(
        keys.memory_seed(node, commitment.asset),
        ledger_pb2.MemorySeed(
            node=node,
            epoch=operation.epoch,
            seed=seed,
            commitment=commitment,
            committed_ms=context.time_ms,
            height=context.height,
        ),
    )
    return context.height


def prove_memory(context: Context, signer: Signer, operation: ledger_pb2.ProveMemory) -> int:
    """Verifies the opened steps and records the ticket; returns the height."""
    require_role(signer, trust_pb2.ROLE_NODE, "proving memory")
    _asked(context)
    node, epoch, asset = signer.key_id, operation.epoch, operation.proof.asset
    beacon = context.state.get(keys.beacon(epoch))
    if beacon is None or epoch > context.epoch.number:
        text = f"No proof is accepted for epoch {epoch}; now is {context.epoch.number}."
        raise Refused(Reason.EpochWrong, text)
    require(len(asset) == DIGEST_BYTES, "The proof's asset isn't 32 bytes.")
    key = keys.memory_seed(node, asset)
    held = read(context.state, key, ledger_pb2.MemorySeed)
    if held is None or held.epoch != epoch:
        text = f"{signer.body.subject} committed no walk over {asset.hex()[:16]} for epoch {epoch}."
        raise Refused(Reason.NotCommitted, text)
    if held.proven:
        raise Refused(Reason.AlreadyProven, f"{asset.hex()[:16]} has the space ticket of epoch {epoch}.")
    asked = challenge(context.chain_id, beacon, node, epoch)
    context.verify(
        Proof(
            proofs_pb2.PROOF_KIND_SPACE,
            asked,
            node,
            canonical(operation.proof),
            canonical(context.genesis.proofs),
            seed=held.seed,
            root=canonical(held.commitment),
        )
    )
    ticket = memory_ticket(asset, epoch, asked, held.commitment)
    win(context, proofs_pb2.PROOF_KIND_SPACE, node, asset, epoch, ticket)
    forget_gone(context, proofs_pb2.PROOF_KIND_SPACE, node)
    held.proven = True
    context.put(key, held)
    return context.height


def _asked(context: Context) -> proofs_pb2.MemoryParameters:
    parameters = context.genesis.proofs
    require(parameters.HasField("memory"), "This chain asks for no proof of memory.")
    return parameters.memory


def _make_room(context: Context, node: bytes, epoch: int) -> None:
    """Forget the node's commitments that nothing can be proven for any more. Raises Refused when too many are left."""
    left = 0
    for key, value in list(context.state.scan(keys.memory_seeds(node))):
        number = ledger_pb2.MemorySeed.FromString(value).epoch
        if context.state.get(keys.beacon(number)) is None:
            context.state.delete(key)
        elif number == epoch:
            left += 1
    require(left < MAX_MEMORIES, f"A node commits the walks of {MAX_MEMORIES} memories in one epoch at most.")
