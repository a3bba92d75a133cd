"""Why a proof is refused: one exception type, whose `reason` is the ledger's refusal reason for that proof."""

from __future__ import annotations

from hypermesh.v1 import proofs_pb2

_REASONS = {
    proofs_pb2.PROOF_KIND_SPACE: "SpaceProofInvalid",
    proofs_pb2.PROOF_KIND_WORK: "WorkProofInvalid",
    proofs_pb2.PROOF_KIND_TIME: "TimeProofInvalid",
}


class ProofRefused(ValueError):
    """A proof that doesn't answer its challenge.

    `kind` names the proof, `reason` is the CamelCase reason of hypermesh.refusals, `message` says what is wrong
    and what to do. Messages hold no measured value of this machine, so all validators give the same text.
    """

    def __init__(self, kind: proofs_pb2.ProofKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = _REASONS[kind]
        self.message = message


def require_length(kind: proofs_pb2.ProofKind, what: str, value: bytes, expected: int) -> None:
    """Raise ProofRefused unless `value` has exactly `expected` bytes."""
    if len(value) != expected:
        raise ProofRefused(kind, f"{what} has {len(value)} bytes: {expected} are needed")
