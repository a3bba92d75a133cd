"""What is asked of whom: every challenge of an epoch follows from chain, beacon, node and epoch by hashing.

beacon → challenge c → J sub-challenges of the plot, a key per device for the matrices, the VDF's discriminant;
the opening seed, drawn after the commitments are final, → which tiles are to be shown.
"""

from __future__ import annotations

from hypermesh.digests import digest, u32, u64
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


def time_seed(c: bytes) -> bytes:
    """Seed of the class group's discriminant (so nobody can start before c is known), 32 bytes."""
    return digest("time/seed", c)
