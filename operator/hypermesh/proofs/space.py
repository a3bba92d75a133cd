"""Proof of space: chiapos answers from the node's own plot to J sub-challenges of its challenge.

The plot id follows from the node key, so a plot serves one node only. One sub-challenge has an answer with
probability 1 − 1/e; the parameters ask for fewer than J, so that an honest plot fails two times (demo) or nine
(production) in a million epochs. An answer is 64 k-bit values, k · 8 bytes.

Source: Abusalah et al., "Beyond Hellman's time-memory trade-offs" (2017/893); Chia proof of space 1.0.
"""

from __future__ import annotations

from hypermesh.proofs.challenges import plot_id, space_challenge
from hypermesh.proofs.refusals import ProofRefused, require_length
from hypermesh.v1 import proofs_pb2

_SPACE = proofs_pb2.PROOF_KIND_SPACE

# One byte of k and 8k bytes of proof stay far inside what chiapos' 8- and 16-bit parameters carry.
LARGEST_K = 40


def verify_space(node: bytes, c: bytes, proof: proofs_pb2.SpaceProof, params: proofs_pb2.ProofParameters) -> None:
    """Raise ProofRefused unless `proof` answers enough sub-challenges of `c` from the plot of `node`.

    `node` is the key id, `c` the node's challenge of the epoch, both 32 bytes.
    """
    if not params.space_min_k <= proof.k <= LARGEST_K:
        raise ProofRefused(_SPACE, f"plot of k={proof.k}: make one between k={params.space_min_k} and k={LARGEST_K}")
    count = len(proof.answers)
    if not params.space_required <= count <= params.space_challenges:
        raise ProofRefused(
            _SPACE,
            f"{count} answers: between {params.space_required} and {params.space_challenges} are needed; "
            "check the plot for damage",
        )
    lowest = 0
    for answer in proof.answers:
        if answer.index < lowest:
            raise ProofRefused(_SPACE, "answers must be sorted by index, no index twice")
        if answer.index >= params.space_challenges:
            raise ProofRefused(
                _SPACE, f"answer {answer.index}: there are {params.space_challenges} sub-challenges only"
            )
        require_length(_SPACE, f"answer {answer.index}", answer.proof, proof.k * 8)
        lowest = answer.index + 1

    import chiapos

    verifier = chiapos.Verifier()
    plot = plot_id(node)
    for answer in proof.answers:
        if not verifier.validate_proof(plot, proof.k, space_challenge(c, answer.index), answer.proof):
            raise ProofRefused(
                _SPACE,
                f"answer {answer.index} doesn't verify: it is from another node's plot, answers another epoch, "
                "or was damaged",
            )
