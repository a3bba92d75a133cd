"""CommitWork and Prove: how a node wins its tickets of an epoch.

CommitWork fixes the work's results and gets a seed drawn from its block; Prove, in a later block, opens what the seed
samples, answers from the plot and shows the VDF. All or nothing: a Prove wins every ticket or none.
"""

from __future__ import annotations

from typing import Final

from hypermesh.digests import digest, u64
from hypermesh.operations import canonical
from hypermesh.proofs.challenges import challenge
from hypermesh.proofs.delay import FORM_BYTES
from hypermesh.proofs.tickets import space_ticket, time_ticket, work_ticket
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Proof
from hypermesh_ledger.execution import behaviour, epochs, rechecks
from hypermesh_ledger.execution.context import Context, Signer, read, require, require_role
from hypermesh_ledger.execution.tickets import forget_work, win

MAX_DEVICES: Final = 64


def commit_work(context: Context, signer: Signer, operation: ledger_pb2.CommitWork) -> int:
    """Returns the height of the commitment (an earlier one for the same commitment again)."""
    require_role(signer, trust_pb2.ROLE_NODE, "committing work")
    commitments = list(operation.commitments)
    require(0 < len(commitments) <= MAX_DEVICES, f"{len(commitments)} commitments; 1 to {MAX_DEVICES} are allowed.")
    require(len({each.device for each in commitments}) == len(commitments), "A device is committed twice.")
    for each in commitments:
        require(len(each.device) == 32 and len(each.root) == 32, "A commitment's device or root isn't 32 bytes.")
        registered = read(context.state, keys.asset(each.device), ledger_pb2.AssetRecord)
        if registered is not None and registered.node != signer.key_id:
            raise Refused(Reason.RoleForbidden, f"Device {each.device.hex()[:16]} belongs to another node.")
    if operation.epoch != context.epoch.number:
        text = f"The commitment is for epoch {operation.epoch}; now is {context.epoch.number}."
        raise Refused(Reason.EpochWrong, text)
    held = read(context.state, keys.seed(signer.key_id), ledger_pb2.WorkSeed)
    if held is not None and held.epoch == operation.epoch:
        if list(held.commitments) == commitments:
            return held.height
        raise Refused(Reason.AlreadyCommitted, f"{signer.body.subject} committed other work for this epoch.")
    seed = digest("work/seed", context.block_hash, signer.key_id, u64(operation.epoch))
    context.put(
        keys.seed(signer.key_id),
        ledger_pb2.WorkSeed(
            node=signer.key_id,
            epoch=operation.epoch,
            seed=seed,
            commitments=commitments,
            committed_ms=context.time_ms,
            height=context.height,
        ),
    )
    return context.height


def prove(context: Context, signer: Signer, operation: ledger_pb2.Prove) -> int:
    """Verifies all proofs and records the tickets; returns the height."""
    require_role(signer, trust_pb2.ROLE_NODE, "proving")
    node, epoch = signer.key_id, operation.epoch
    beacon = context.state.get(keys.beacon(epoch))
    if beacon is None or epoch > context.epoch.number:
        text = f"No proof is accepted for epoch {epoch}; now is {context.epoch.number}."
        raise Refused(Reason.EpochWrong, text)
    proven = context.state.get(keys.proven(node))
    if proven is not None and int.from_bytes(proven, "big") >= epoch:
        raise Refused(Reason.AlreadyProven, f"{signer.body.subject} has the tickets of epoch {epoch}.")
    seed = read(context.state, keys.seed(node), ledger_pb2.WorkSeed)
    if seed is None or seed.epoch != epoch:
        raise Refused(Reason.NotCommitted, f"{signer.body.subject} committed no work for epoch {epoch}.")
    asked = challenge(context.chain_id, beacon, node, epoch)
    parameters = canonical(context.genesis.proofs)
    for check in _checks(operation, seed, asked, node, parameters):
        context.verify(check)
    win(context, proofs_pb2.PROOF_KIND_SPACE, node, node, epoch, space_ticket(node, epoch, asked))
    for each in seed.commitments:
        ticket = work_ticket(each.device, epoch, asked, each.root)
        win(context, proofs_pb2.PROOF_KIND_WORK, node, each.device, epoch, ticket)
        rechecks.begin(context, seed, each, asked, ticket)
    forget_work(context, node)
    ticket = time_ticket(node, epoch, asked, operation.time)
    win(context, proofs_pb2.PROOF_KIND_TIME, node, node, epoch, ticket)
    context.state.put(keys.proven(node), u64(epoch))
    behaviour.proven(context, signer, epoch, seed)
    epochs.mix_in(context.state, operation.time.output[:FORM_BYTES])
    return context.height


def _checks(
    operation: ledger_pb2.Prove, seed: ledger_pb2.WorkSeed, asked: bytes, node: bytes, parameters: bytes
) -> list[Proof]:
    """All verifications that this Prove needs; the cheap ones first."""
    devices = [proof.device for proof in operation.work]
    if devices != [each.device for each in seed.commitments]:
        text = f"Work is shown for {len(devices)} devices, not for the {len(seed.commitments)} committed, in order."
        raise Refused(Reason.WorkProofInvalid, text)
    space, duration = canonical(operation.space), canonical(operation.time)
    return [
        Proof(proofs_pb2.PROOF_KIND_SPACE, asked, node, space, parameters),
        Proof(proofs_pb2.PROOF_KIND_TIME, asked, node, duration, parameters),
        *(
            Proof(
                proofs_pb2.PROOF_KIND_WORK,
                asked,
                each.device,
                canonical(proof),
                parameters,
                seed=seed.seed,
                root=each.root,
            )
            for proof, each in zip(operation.work, seed.commitments, strict=True)
        ),
    ]
