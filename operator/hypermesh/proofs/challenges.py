"""What is asked of whom: every challenge of an epoch follows from chain, beacon, node and epoch by hashing.

beacon → challenge c → J sub-challenges of the plot, a key per device for the matrices, the VDF's discriminant;
the opening seed, drawn after the commitments are final, → which tiles and blocks are to be shown. What memory is
filled with does not depend on the epoch; which of its labels are read does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from hypermesh.digests import digest, preimage, u32, u64
from hypermesh.v1 import proofs_pb2


def challenge(chain_id: str, beacon: bytes, node: bytes, epoch: int) -> bytes:
    """The node's challenge of an epoch, 32 bytes. `node` is the key id, `beacon` any bytes nobody could foresee."""
    return digest("challenge", chain_id.encode(), beacon, node, u64(epoch))


def plot_id(node: bytes) -> bytes:
    """The id (chiapos' plot seed, 32 bytes) of the one plot that belongs to a node's key id."""
    return digest("plot", node)


def space_challenge(c: bytes, index: int) -> bytes:
    """Sub-challenge `index` (0 … J − 1) of the node's plot, 32 bytes."""
    return digest("space/challenge", c, u32(index))


def work_key(c: bytes, device: bytes, params: proofs_pb2.ProofParameters) -> bytes:
    """Key of round 0 for one device (its asset id): fixes both factors of the first matrix product, 32 bytes."""
    shape = u32(params.work_n) + u32(params.work_tile) + u32(params.work_rounds)
    return digest("work/key", c, device, shape)


def next_work_key(key: bytes, round_root: bytes) -> bytes:
    """Key of the next round: known only to who has finished the round before, 32 bytes."""
    return digest("work/next", key, round_root)


def work_samples(seed: bytes, device: bytes, root: bytes, params: proofs_pb2.ProofParameters) -> list[tuple[int, int]]:
    """The (round, tile) pairs that must be opened, in order; pairs may repeat.

    `seed` is the ledger's, drawn after `root` was committed: a prover who knows it earlier chooses what to fake.
    """
    tiles = (params.work_n // params.work_tile) ** 2
    samples = []
    for index in range(params.work_samples):
        drawn = digest("work/sample", seed, device, root, u32(index))
        number = int.from_bytes(drawn[:16], "big")
        samples.append((number // tiles % params.work_rounds, number % tiles))
    return samples


def memory_owner(chain_id: str, node: bytes) -> bytes:
    """Whom memory is filled for, 32 bytes: a node (key id) on one chain, so that no fill serves two."""
    return digest("memory/owner", chain_id.encode(), node)


def memory_key(owner: bytes, asset: bytes, params: proofs_pb2.MemoryParameters) -> bytes:
    """Password of every block in the memory of one asset (id) of a memory_owner, 32 bytes; the same in every epoch."""
    return digest("memory/key", owner, asset, u32(params.block_kib), u32(params.passes))


def memory_question(c: bytes, asset: bytes, slabs: int) -> bytes:
    """What an epoch asks of one memory, 32 bytes; so what it answers can't be shown as another size's, or another's."""
    return digest("memory/question", c, asset, u32(slabs))


def memory_places(question: bytes, block: int, params: proofs_pb2.MemoryParameters) -> Iterator[int]:
    """Which labels of a block an epoch reads, in order: places below block_kib · 16, some perhaps twice.

    Drawn by SHAKE-256 (FIPS 202), all of them in one call: a node draws for each of its blocks.
    """
    drawn = hashlib.shake_256(preimage("memory/places", question, u64(block))).digest(2 * params.labels)
    last = params.block_kib * 16 - 1  # a power of two less one: every place is as likely as the others
    return (int.from_bytes(drawn[at : at + 2], "big") & last for at in range(0, len(drawn), 2))


def memory_samples(
    seed: bytes, commitment: proofs_pb2.MemoryCommitment, blocks: int, params: proofs_pb2.MemoryParameters
) -> list[int]:
    """The blocks that must be opened, in order; blocks may repeat. `seed` is drawn after the commitment is final."""
    samples = []
    for index in range(params.samples):
        drawn = digest("memory/sample", seed, commitment.asset, u32(commitment.slabs), commitment.root, u32(index))
        samples.append(int.from_bytes(drawn[:16], "big") % blocks)
    return samples


def time_seed(c: bytes) -> bytes:
    """Seed of the class group's discriminant (so nobody can start before c is known), 32 bytes."""
    return digest("time/seed", c)
