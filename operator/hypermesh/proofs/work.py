"""Proof of work: rounds of C = A·B, int8 → int32, seeded by the challenge, committed by a Merkle root, then opened.

Round r has the key k_r: k_0 = work_key(c, device), k_{r+1} = next_work_key(k_r, root_r); so rounds can't run side
by side. root_r is the Merkle root over the T×T tiles of C in row order; the commitment is
``digest("work/root", root_0, …)``. Only after it is final does the ledger draw the seed that samples tiles;
the verifier computes just those again.

What it shows, and what not: docs/concepts/proofs.md. All values are integers: |C| ≤ n · 2¹⁴ < 2³¹ for n < 2¹⁷.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypermesh.digests import DIGEST_BYTES, digest
from hypermesh.proofs import matrices, merkle
from hypermesh.proofs.challenges import next_work_key, work_key, work_samples
from hypermesh.proofs.refusals import ProofRefused, require_length
from hypermesh.v1 import proofs_pb2

_WORK = proofs_pb2.PROOF_KIND_WORK


def commitment_root(round_roots: Sequence[bytes]) -> bytes:
    """The root that a CommitWork carries, from the 32-byte roots of all rounds in order."""
    return digest("work/root", *round_roots)


def verify_work(
    c: bytes,
    device: bytes,
    seed: bytes,
    commitment_root: bytes,
    proof: proofs_pb2.WorkProof,
    params: proofs_pb2.ProofParameters,
) -> None:
    """Raise ProofRefused unless `proof` opens `commitment_root` of `device` at the tiles that `seed` samples.

    `c` is the node's challenge of the epoch, `device` the asset id, `seed` the ledger's; all 32 bytes.
    """
    _check_form(device, commitment_root, proof, params)
    samples = work_samples(seed, device, commitment_root, params)
    _check_openings(samples, proof)
    keys = [work_key(c, device, params)]
    for round_root in proof.round_roots:
        keys.append(next_work_key(keys[-1], round_root))
    checked: set[tuple[int, int]] = set()
    for (round_number, tile), opening in zip(samples, proof.openings, strict=True):
        if (round_number, tile) in checked:
            continue  # same leaf of the same tree: its path has been checked, so its values are the same
        if opening.values != tile_values(keys[round_number], tile, params):
            raise ProofRefused(
                _WORK,
                f"tile {tile} of round {round_number} isn't the product: the work was done for another challenge "
                "or device, or not at all",
            )
        checked.add((round_number, tile))


def tile_values(key: bytes, tile: int, params: proofs_pb2.ProofParameters) -> bytes:
    """Tile number `tile` of the round with `key`: T·T little-endian int32 in row order."""
    import numpy

    n, size = params.work_n, params.work_tile
    row, column = divmod(tile, n // size)
    left = matrices.rows(key, matrices.Factor.LEFT, n, row * size, size)
    right = matrices.rows(key, matrices.Factor.RIGHT_TRANSPOSED, n, column * size, size)
    a = numpy.frombuffer(left, numpy.int8).reshape(size, n).astype(numpy.int32)
    b = numpy.frombuffer(right, numpy.int8).reshape(size, n).astype(numpy.int32)
    product: bytes = (a @ b.T).astype("<i4").tobytes()
    return product


def _check_form(
    device: bytes,
    committed: bytes,
    proof: proofs_pb2.WorkProof,
    params: proofs_pb2.ProofParameters,
) -> None:
    """Everything that can be refused by counting, and the round roots against the commitment."""
    if proof.device != device:
        raise ProofRefused(_WORK, "work proof names another device than its commitment")
    if len(proof.round_roots) != params.work_rounds:
        raise ProofRefused(_WORK, f"work proof of {len(proof.round_roots)} rounds: {params.work_rounds} are needed")
    for number, root in enumerate(proof.round_roots):
        require_length(_WORK, f"root of round {number}", root, DIGEST_BYTES)
    if commitment_root(proof.round_roots) != committed:
        raise ProofRefused(_WORK, "round roots don't give the committed root: open what was committed")
    if len(proof.openings) != params.work_samples:
        raise ProofRefused(
            _WORK, f"work proof opens {len(proof.openings)} tiles: the seed samples {params.work_samples}"
        )
    depth = 2 * (params.work_n // params.work_tile).bit_length() - 2
    for number, opening in enumerate(proof.openings):
        require_length(_WORK, f"tile of opening {number}", opening.values, 4 * params.work_tile**2)
        if len(opening.path) != depth:
            raise ProofRefused(_WORK, f"path of opening {number} has {len(opening.path)} hashes: {depth} are needed")
        for sibling in opening.path:
            require_length(_WORK, f"path hash of opening {number}", sibling, DIGEST_BYTES)


def _check_openings(samples: Sequence[tuple[int, int]], proof: proofs_pb2.WorkProof) -> None:
    """Every opening is the sampled one and hashes to the root of its round."""
    for number, (sample, opening) in enumerate(zip(samples, proof.openings, strict=True)):
        if (opening.round, opening.tile) != sample:
            raise ProofRefused(
                _WORK,
                f"opening {number} shows tile {opening.tile} of round {opening.round}: the seed asks for tile "
                f"{sample[1]} of round {sample[0]}",
            )
        leaf = merkle.leaf_hash(opening.tile, opening.values)
        if merkle.root_of(leaf, opening.tile, opening.path) != proof.round_roots[opening.round]:
            raise ProofRefused(_WORK, f"opening {number} isn't in the tree of round {opening.round}")
