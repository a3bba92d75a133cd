"""Work done: all rounds of the seeded matrix product, their Merkle trees, the openings.

Runs in worker processes only: of the agent, which proves, and of validators, which compute again what was proven.
The product itself is a function `Multiply` (numpy here, OpenCL in the agent), bit-exact whatever computes it: in
numpy, float32 chunks of K ≤ 1024 are exact, as every partial sum of int8 products stays within 2²⁴.
Opening computes the rounds again instead of keeping gigabytes between the two phases; a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hypermesh.proofs import matrices, merkle, work_key, work_samples
from hypermesh.proofs.challenges import next_work_key
from hypermesh.proofs.work import commitment_root
from hypermesh.v1 import proofs_pb2

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Int8 = NDArray[numpy.int8]
    Int32 = NDArray[numpy.int32]
    Multiply = Callable[[Int8, Int8], Int32]

_EXACT_K = 1024
# Rows of C computed at a time: bounds memory at rows · n · 4 bytes beside the right factor.
_BLOCK_ROWS = 1024


def multiply_numpy(left: Int8, right_transposed: Int8) -> Int32:
    """left (rows×n) · right_transposedᵀ (n×n) in int32, by exact float32 chunks."""
    import numpy

    n = left.shape[1]
    product = numpy.zeros((left.shape[0], right_transposed.shape[0]), numpy.int32)
    for start in range(0, n, _EXACT_K):
        chunk = slice(start, start + _EXACT_K)
        part = left[:, chunk].astype(numpy.float32) @ right_transposed[:, chunk].astype(numpy.float32).T
        product += part.astype(numpy.int32)
    return product


def commit(c: bytes, device: bytes, params: proofs_pb2.ProofParameters, multiply: Multiply) -> bytes:
    """Do the work; the root to commit, 32 bytes."""
    return commitment_root([levels[-1][0] for levels, _ in _rounds(c, device, params, multiply, {})])


def open_work(
    c: bytes, device: bytes, seed: bytes, root: bytes, params: proofs_pb2.ProofParameters, multiply: Multiply
) -> proofs_pb2.WorkProof:
    """The openings that `seed` samples of the committed `root`. Check them with verify_work before use."""
    samples = work_samples(seed, device, root, params)
    wanted: dict[int, set[int]] = {}
    for round_number, tile in samples:
        wanted.setdefault(round_number, set()).add(tile)
    roots: list[bytes] = []
    shown: dict[tuple[int, int], proofs_pb2.TileOpening] = {}
    for number, (levels, tiles) in enumerate(_rounds(c, device, params, multiply, wanted)):
        roots.append(levels[-1][0])
        for tile, values in tiles.items():
            shown[number, tile] = proofs_pb2.TileOpening(
                round=number, tile=tile, values=values, path=merkle.path(levels, tile)
            )
    return proofs_pb2.WorkProof(device=device, round_roots=roots, openings=[shown[sample] for sample in samples])


def _rounds(
    c: bytes,
    device: bytes,
    params: proofs_pb2.ProofParameters,
    multiply: Multiply,
    wanted: dict[int, set[int]],
) -> Iterator[tuple[list[list[bytes]], dict[int, bytes]]]:
    """Each round's Merkle levels and the wanted tiles' values; every round's key needs the root before it."""
    key = work_key(c, device, params)
    for number in range(params.work_rounds):
        keep = wanted.get(number, set())
        leaves: list[bytes] = []
        tiles: dict[int, bytes] = {}
        for index, values in enumerate(_tiles(key, params, multiply)):
            leaves.append(merkle.leaf_hash(index, values))
            if index in keep:
                tiles[index] = values
        levels = merkle.build(leaves)
        yield levels, tiles
        key = next_work_key(key, levels[-1][0])


def _tiles(key: bytes, params: proofs_pb2.ProofParameters, multiply: Multiply) -> Iterator[bytes]:
    """All tiles of one product in row order: T·T little-endian int32 each."""
    import numpy

    n, size = params.work_n, params.work_tile
    step = min(n, max(size, _BLOCK_ROWS))
    right = numpy.frombuffer(matrices.rows(key, matrices.Factor.RIGHT_TRANSPOSED, n, 0, n), numpy.int8).reshape(n, n)
    for first in range(0, n, step):
        raw = matrices.rows(key, matrices.Factor.LEFT, n, first, step)
        left = numpy.frombuffer(raw, numpy.int8).reshape(step, n)
        block = multiply(left, right).astype("<i4", copy=False)
        tiled = block.reshape(step // size, size, n // size, size).swapaxes(1, 2).tobytes()
        width = 4 * size * size
        for offset in range(0, len(tiled), width):
            yield tiled[offset : offset + width]
