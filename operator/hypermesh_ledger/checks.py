"""Checks that cost too much to repeat: signatures and proofs, as values that can be keyed, cached and sent elsewhere.

Execution asks `verify(check)`, which returns or raises Refused. Whether the answer was computed now, in another
process, or an hour ago makes no difference: it depends on nothing but the check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import hypermesh_native
from hypermesh import digests
from hypermesh.proofs.refusals import ProofRefused
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import proofs_pb2


@dataclass(frozen=True, slots=True)
class Signature:
    """An envelope's: public key, signature, and the 32 bytes that it is over (`operations.Read.signed`)."""

    public: bytes
    signature: bytes
    digest: bytes
    key: bytes
    """64 bytes that stand for the whole check: the key's id, and a digest of the others."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof of space, work or time against its challenge; all messages serialized deterministically.

    subject is the node (space, time) or the device (work); seed and root are the work commitment's. A proof of space
    with a root is one of memory: root is then the whole MemoryCommitment, seed the one drawn for it, subject the
    memory's owner.
    """

    kind: int
    challenge: bytes
    subject: bytes
    proof: bytes
    parameters: bytes
    seed: bytes = b""
    root: bytes = b""

    @property
    def key(self) -> bytes:
        """32 bytes that stand for the whole check."""
        parts = (self.challenge, self.subject, self.proof, self.parameters, self.seed, self.root)
        return digests.digest("check/proof", bytes([self.kind]), *parts)


Check = Signature | Proof
NOT_SIGNED: Final = "The signature does not cover these bytes with the signer's enrolled key."
Verify = Callable[[Check], None]


def verify_now(check: Check) -> None:
    """Compute the answer here. Raises Refused."""
    match check:
        case Signature():
            if not hypermesh_native.verify(check.public, check.signature, check.digest):
                raise Refused(Reason.BadSignature, NOT_SIGNED)
        case Proof():
            _verify_proof(check)


def _verify_proof(check: Proof) -> None:
    from hypermesh import proofs  # the proofs' native modules are loaded only where proofs are verified

    parameters = proofs_pb2.ProofParameters.FromString(check.parameters)
    try:
        match check.kind:
            case proofs_pb2.PROOF_KIND_SPACE if check.root:
                memory = proofs_pb2.MemoryProof.FromString(check.proof)
                commitment = proofs_pb2.MemoryCommitment.FromString(check.root)
                asked = parameters.memory
                proofs.verify_memory(check.subject, check.challenge, check.seed, commitment, memory, asked)
            case proofs_pb2.PROOF_KIND_SPACE:
                space = proofs_pb2.SpaceProof.FromString(check.proof)
                proofs.verify_space(check.subject, check.challenge, space, parameters)
            case proofs_pb2.PROOF_KIND_WORK:
                work = proofs_pb2.WorkProof.FromString(check.proof)
                proofs.verify_work(check.challenge, check.subject, check.seed, check.root, work, parameters)
            case proofs_pb2.PROOF_KIND_TIME:
                duration = proofs_pb2.TimeProof.FromString(check.proof)
                proofs.verify_time(check.challenge, duration, parameters)
            case _:
                raise ValueError(f"proof kind {check.kind} has no verifier")
    except ProofRefused as refusal:
        raise Refused(Reason(refusal.reason), refusal.message) from refusal
