"""Tickets: 32-byte names of won proofs, kept in the ledger's state and named by every asset operation.

A ticket binds kind, subject and epoch, and only those parts of a proof that its challenge determines: a time
ticket follows from the VDF's output, not from its (malleable) proof bytes, so nobody can grind a ticket's value.
"""

from __future__ import annotations

from hypermesh.digests import digest, u32, u64
from hypermesh.proofs.delay import FORM_BYTES
from hypermesh.v1 import proofs_pb2, trust_pb2

_DOMAINS = {
    proofs_pb2.PROOF_KIND_SPACE: "ticket/space",
    proofs_pb2.PROOF_KIND_STAKE: "ticket/stake",
    proofs_pb2.PROOF_KIND_WORK: "ticket/work",
    proofs_pb2.PROOF_KIND_TIME: "ticket/time",
}


def ticket_hash(kind: proofs_pb2.ProofKind, subject: bytes, epoch: int, *parts: bytes) -> bytes:
    """The ticket of `kind` for `subject` (key id, or the device's asset id for work) in `epoch`; 32 bytes.

    Raises KeyError for PROOF_KIND_UNSPECIFIED.
    """
    return digest(_DOMAINS[kind], subject, u64(epoch), *parts)


def space_ticket(node: bytes, epoch: int, c: bytes) -> bytes:
    """Ticket of a verified space proof: which of the valid answers were shown makes no difference."""
    return ticket_hash(proofs_pb2.PROOF_KIND_SPACE, node, epoch, c)


def memory_ticket(node: bytes, epoch: int, c: bytes, commitment: proofs_pb2.MemoryCommitment) -> bytes:
    """Ticket of a verified memory proof: binds the committed answers and what they were said to be of."""
    return digest("ticket/memory", node, u64(epoch), c, commitment.asset, u32(commitment.slabs), commitment.root)


def stake_ticket_hash(
    signer_key_id: bytes, role: trust_pb2.Role, certificate: trust_pb2.Certificate, epoch: int
) -> bytes:
    """Ticket of an enrolled key in its role: derived from the certificate's signed body, no operation wins it."""
    return ticket_hash(proofs_pb2.PROOF_KIND_STAKE, signer_key_id, epoch, u32(role), certificate.body)


def work_ticket(device: bytes, epoch: int, c: bytes, root: bytes) -> bytes:
    """Ticket of a verified work proof over the committed `root`."""
    return ticket_hash(proofs_pb2.PROOF_KIND_WORK, device, epoch, c, root)


def time_ticket(node: bytes, epoch: int, c: bytes, proof: proofs_pb2.TimeProof) -> bytes:
    """Ticket of a verified time proof: binds the VDF's output form, the first 100 bytes of `proof.output`."""
    return ticket_hash(proofs_pb2.PROOF_KIND_TIME, node, epoch, c, u64(proof.iterations), proof.output[:FORM_BYTES])
