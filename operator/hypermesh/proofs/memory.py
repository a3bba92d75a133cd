"""Proof of space for memory: a walk over filled memory that only who has all of it can finish in time.

    key = H(node, asset)  ──Argon2d──▶ blocks ▶ slabs ▶ 64-byte labels, the same in every epoch       (`fill`)
    c ──▶ s₀;  s_{j+1} = SHA-256(s_j ‖ label[s_j mod N])  ──▶ Merkle root over s₀ … s_{Q−1} ──▶ committed by a deadline
    the ledger's later seed ──▶ steps to open ──▶ the verifier makes one block a step and takes the step itself

Each step's place follows from the step before: no part of the walk can be done earlier, elsewhere or side by side, and
a missing label costs a whole block (256 KiB, 6 passes) before the walk can go on. The first `slabs` slabs are walked,
so memory that goes to a tenant is cut off at the end, and N follows from one number that the commitment carries.

SHA-256 is the hash of all the project, as fast as BLAKE3 at 96 bytes a call (0.6 µs from Python), and needs no library.
Source: after Dziembowski et al., "Proofs of Space" (2013/796), with RFC 9106 as the memory-hard function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from hypermesh.digests import DIGEST_BYTES
from hypermesh.proofs import fill, merkle
from hypermesh.proofs.challenges import memory_key, memory_samples, memory_start
from hypermesh.proofs.refusals import ProofRefused, require_length
from hypermesh.v1 import proofs_pb2

_SPACE = proofs_pb2.PROOF_KIND_SPACE
MAX_SLABS: Final = 1 << 24
"""Far above any machine; keeps every place a 64-bit number."""


def labels(slabs: int, params: proofs_pb2.MemoryParameters) -> int:
    """N, the number of labels in `slabs` slabs."""
    return slabs * params.slab_bytes // fill.LABEL_BYTES


def place(state: bytes, count: int) -> int:
    """Which of `count` labels the step from `state` reads."""
    return int.from_bytes(state[:8], "little") % count


def step(state: bytes, label: bytes) -> bytes:
    """The next state, 32 bytes."""
    return hashlib.sha256(state + label).digest()


def walk(start: bytes, read: Callable[[int], bytes], count: int, steps: int) -> list[bytes]:
    """All `steps` states from `start` on; `read` gives the label of a place below `count`."""
    states, state = [start], start
    for _ in range(steps - 1):
        state = step(state, read(place(state, count)))
        states.append(state)
    return states


def tree(states: list[bytes]) -> list[list[bytes]]:
    """Merkle levels over the states; the root, last, is what a commitment carries."""
    return merkle.build(merkle.leaf_hash(index, state) for index, state in enumerate(states))


def open_walk(
    states: list[bytes],
    seed: bytes,
    commitment: proofs_pb2.MemoryCommitment,
    params: proofs_pb2.MemoryParameters,
) -> proofs_pb2.MemoryProof:
    """The openings that `seed` asks of a committed walk. Check them with verify_memory before use."""
    levels = tree(states)
    proof = proofs_pb2.MemoryProof(asset=commitment.asset)
    for index in memory_samples(seed, commitment, params):
        before, after, above = merkle.adjacent_paths(levels, index)
        proof.openings.add(state=states[index - 1], before=before, after=after, above=above)
    return proof


def verify_memory(
    node: bytes,
    c: bytes,
    seed: bytes,
    commitment: proofs_pb2.MemoryCommitment,
    proof: proofs_pb2.MemoryProof,
    params: proofs_pb2.MemoryParameters,
) -> None:
    """Raise ProofRefused unless `proof` opens the committed walk of `node` (key id) at the steps that `seed` draws.

    `c` is the node's challenge of the epoch, `seed` the ledger's, 32 bytes each. That the commitment came in time and
    has enough slabs is the ledger's to check.
    """
    if not 0 < commitment.slabs <= MAX_SLABS:
        raise ProofRefused(_SPACE, f"a walk over {commitment.slabs} slabs: between 1 and {MAX_SLABS} can be proven")
    wanted = memory_samples(seed, commitment, params)
    _check_form(wanted, commitment, proof, params)
    if proof.openings[0].state != memory_start(c, commitment.asset, commitment.slabs):
        raise ProofRefused(
            _SPACE, "the walk doesn't begin at the epoch's challenge: it is of another epoch, node or asset"
        )
    key, count = memory_key(node, commitment.asset, params), labels(commitment.slabs, params)
    block_labels = params.block_kib * 1024 // fill.LABEL_BYTES
    checked: dict[int, proofs_pb2.StepOpening] = {}
    blocks: dict[int, bytes] = {}
    for index, opening in zip(wanted, proof.openings, strict=True):
        if index in checked:
            if checked[index] != opening:
                raise ProofRefused(_SPACE, f"step {index} is opened twice, and not the same way")
            continue
        number, within = divmod(place(opening.state, count), block_labels)
        if number not in blocks:
            blocks[number] = fill.block(key, number, params.block_kib, params.passes)
        at = within * fill.LABEL_BYTES
        after = step(opening.state, blocks[number][at : at + fill.LABEL_BYTES])
        leaves = merkle.leaf_hash(index - 1, opening.state), merkle.leaf_hash(index, after)
        siblings = list(opening.before), list(opening.after), list(opening.above)
        if merkle.adjacent_root(*leaves, index, siblings) != commitment.root:
            raise ProofRefused(
                _SPACE,
                f"step {index} isn't in the committed walk: its memory was filled for another key, or not at all, "
                "or the opening was damaged",
            )
        checked[index] = opening


def _check_form(
    wanted: list[int],
    commitment: proofs_pb2.MemoryCommitment,
    proof: proofs_pb2.MemoryProof,
    params: proofs_pb2.MemoryParameters,
) -> None:
    """Everything that can be refused by counting, before any memory is filled."""
    require_length(_SPACE, "asset of the memory commitment", commitment.asset, DIGEST_BYTES)
    require_length(_SPACE, "root of the memory commitment", commitment.root, DIGEST_BYTES)
    if proof.asset != commitment.asset:
        raise ProofRefused(_SPACE, "memory proof names another asset than its commitment")
    if len(proof.openings) != len(wanted):
        raise ProofRefused(_SPACE, f"memory proof opens {len(proof.openings)} steps: {len(wanted)} are asked for")
    depth = params.steps.bit_length() - 1
    for number, (index, opening) in enumerate(zip(wanted, proof.openings, strict=True)):
        require_length(_SPACE, f"state of opening {number}", opening.state, DIGEST_BYTES)
        apart = merkle.meeting_level(index)
        parts = ((opening.before, apart), (opening.after, apart), (opening.above, depth - apart - 1))
        for siblings, needed in parts:
            if len(siblings) != needed:
                raise ProofRefused(
                    _SPACE, f"a path of opening {number} has {len(siblings)} hashes: {needed} are needed"
                )
            for sibling in siblings:
                require_length(_SPACE, f"path hash of opening {number}", sibling, DIGEST_BYTES)
