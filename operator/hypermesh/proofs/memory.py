"""Proof of memory: every block of a filled memory answers the epoch's challenge, before a deadline; some are checked.

    key = H(chain, node, asset) → block i = raw Argon2d memory (fill) ── kept from epoch to epoch
    challenge c → labels drawn in each block → answer i = H(i, those labels) → Merkle root of all answers → CommitMemory
    seed, of the block after the commitment's → s blocks → paths (ProveMemory) → the verifier makes these blocks again

Answers are independent of each other and each can be checked alone, so nothing can be cut out or left out unseen: a
memory of which a share q is neither there nor made again in time has a share q of wrong answers, and passes with
(1 − q)^s. Who keeps only a part f of each block has no better way: its answer is right with f^labels, below f.
What passes therefore shows: so many bytes were held, or made again at the speed of Argon2d, within the deadline.

The first `slabs` slabs are asked, so that memory which goes to a tenant is cut off at the end. A sequence of steps
would show more if its order could be checked; docs/decisions/0007-memory-proof.md says why a chain of hashes can't.
Source: RFC 9106 for the blocks; Dziembowski et al., "Proofs of Space" (2013/796), for the shape: commit, then open.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from hypermesh.digests import DIGEST_BYTES, digest, u64
from hypermesh.proofs import fill, merkle
from hypermesh.proofs.challenges import memory_key, memory_places, memory_question, memory_samples
from hypermesh.proofs.refusals import ProofRefused, require_length
from hypermesh.v1 import proofs_pb2

_SPACE = proofs_pb2.PROOF_KIND_SPACE
_EMPTY = bytes(DIGEST_BYTES)
MAX_BLOCKS: Final = 1 << 24
"""4 TiB of 256 KiB blocks: bounds a proof's size."""
DOUBT_BITS: Final = 40
"""A memory is credited with what a cheat would have to hold to pass more often than once in 2**DOUBT_BITS."""


def blocks(slabs: int, params: proofs_pb2.MemoryParameters) -> int:
    """How many blocks `slabs` slabs are. Raises ProofRefused unless such a memory can be proven."""
    count = slabs * params.slab_bytes // (params.block_kib * 1024)
    if not 0 < count <= MAX_BLOCKS:
        raise ProofRefused(_SPACE, f"a memory of {slabs} slabs: 1 to {MAX_BLOCKS} blocks can be proven")
    return count


def shown_bytes(slabs: int, params: proofs_pb2.MemoryParameters) -> int:
    """What a proof of `slabs` slabs shows, but for one chance in 2**DOUBT_BITS; the rest may be missing."""
    return slabs * params.slab_bytes // 1000 * (1000 - _missing_per_mille(params.samples))


@cache
def _missing_per_mille(samples: int) -> int:
    """The smallest share q, in thousandths, with (1 − q)^samples ≤ 2^−DOUBT_BITS."""
    return next(q for q in range(1001) if (1000 - q) ** samples << DOUBT_BITS <= 1000**samples)


def answer(question: bytes, number: int, block: bytes | memoryview, params: proofs_pb2.MemoryParameters) -> bytes:
    """What block `number`, with these bytes, answers; 32 bytes."""
    size = fill.LABEL_BYTES
    labels = [block[place * size : (place + 1) * size] for place in memory_places(question, number, params)]
    return digest("memory/answer", question, u64(number), b"".join(labels))


def tree(answers: list[bytes]) -> list[list[bytes]]:
    """Merkle levels over all answers; the root, last, is what a commitment carries."""
    width = 1 << (len(answers) - 1).bit_length()
    return merkle.build([*answers, *[_EMPTY] * (width - len(answers))])


def open_blocks(
    levels: list[list[bytes]],
    seed: bytes,
    commitment: proofs_pb2.MemoryCommitment,
    params: proofs_pb2.MemoryParameters,
) -> proofs_pb2.MemoryProof:
    """The paths that `seed` asks of committed answers. Check them with verify_memory before use."""
    wanted = memory_samples(seed, commitment, blocks(commitment.slabs, params), params)
    paths = [proofs_pb2.MemoryPath(siblings=merkle.path(levels, number)) for number in wanted]
    return proofs_pb2.MemoryProof(asset=commitment.asset, paths=paths)


def verify_memory(
    owner: bytes,
    c: bytes,
    seed: bytes,
    commitment: proofs_pb2.MemoryCommitment,
    proof: proofs_pb2.MemoryProof,
    params: proofs_pb2.MemoryParameters,
    make: Callable[[bytes, int, int, int], bytes] = fill.block,
) -> None:
    """Raise ProofRefused unless `proof` opens the committed answers at the blocks that `seed` draws.

    `owner` is the node's memory_owner, `c` its challenge of the epoch, `seed` the ledger's, 32 bytes each. That the
    commitment came in time is the ledger's to check. `make` gives a block, as fill.block does.
    """
    count = blocks(commitment.slabs, params)
    wanted = memory_samples(seed, commitment, count, params)
    _check_form(wanted, count, commitment, proof)
    key, question = memory_key(owner, commitment.asset, params), memory_question(c, commitment.asset, commitment.slabs)
    checked: dict[int, proofs_pb2.MemoryPath] = {}
    for number, path in zip(wanted, proof.paths, strict=True):
        if number in checked:
            if checked[number] != path:
                raise ProofRefused(_SPACE, f"block {number} is opened twice, and not the same way")
            continue
        right = answer(question, number, make(key, number, params.block_kib, params.passes), params)
        if merkle.root_of(right, number, path.siblings) != commitment.root:
            raise ProofRefused(
                _SPACE,
                f"block {number} of the memory did not answer as committed: it isn't there, was filled for another "
                "key, or answered another epoch",
            )
        checked[number] = path


def _check_form(
    wanted: list[int], count: int, commitment: proofs_pb2.MemoryCommitment, proof: proofs_pb2.MemoryProof
) -> None:
    """Everything that can be refused by counting, before any block is made."""
    require_length(_SPACE, "asset of the memory commitment", commitment.asset, DIGEST_BYTES)
    require_length(_SPACE, "root of the memory commitment", commitment.root, DIGEST_BYTES)
    if proof.asset != commitment.asset:
        raise ProofRefused(_SPACE, "memory proof names another asset than its commitment")
    if len(proof.paths) != len(wanted):
        raise ProofRefused(_SPACE, f"memory proof opens {len(proof.paths)} blocks: {len(wanted)} are asked for")
    depth = (count - 1).bit_length()
    for index, path in enumerate(proof.paths):
        if len(path.siblings) != depth:
            raise ProofRefused(_SPACE, f"path {index} has {len(path.siblings)} hashes: {depth} are needed")
        for sibling in path.siblings:
            require_length(_SPACE, f"hash of path {index}", sibling, DIGEST_BYTES)
