"""One signature for many operations: the root of a Merkle tree is signed, and each envelope carries its path.

    (operation, tickets) of each -> leaves -> root -> one Falcon signature;  envelope -> its leaf and path -> the root

A FALCON-1024 signature in the constant-time implementation takes ten milliseconds of a processor, verification a tenth
of one; whoever submits many operations at once signs their root instead. Every envelope stays complete by itself: it
proves that its signer signed exactly this operation and these tickets, without the others.

Leaves and nodes are hashed in domains of their own (RFC 6962, 2.1), and absent leaves are zeros, which no hash is.
Pure; hashes are SHA-256 digests of `hypermesh.digests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypermesh.digests import digest

MAX_DEPTH: Final = 12
"""4096 operations under one signature."""
HASH_BYTES: Final = 32
MARK: Final = b"batch"
"""Stands where ticket bytes stand in the signature of a single operation, and is no message, so no ticket bytes."""

_ABSENT: Final = bytes(HASH_BYTES)


def leaf(operation: bytes, tickets: bytes) -> bytes:
    """The leaf of one operation; 32 bytes."""
    return digest("batch/leaf", operation, tickets)


def root(leaf_hash: bytes, index: int, path: Sequence[bytes]) -> bytes:
    """The root of the tree in which the leaf stands at `index`, if the path (siblings, leaf level first) is right."""
    node = leaf_hash
    for sibling in path:
        node = digest("batch/node", sibling, node) if index & 1 else digest("batch/node", node, sibling)
        index >>= 1
    return node


def well_formed(index: int, path: Sequence[bytes]) -> bool:
    """Whether a path can be one: not too long, whole hashes, and the index inside the tree."""
    depth = len(path)
    if not depth:
        return index == 0
    return depth <= MAX_DEPTH and index < 1 << depth and all(len(sibling) == HASH_BYTES for sibling in path)


def tree(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root, and the path of each leaf. ValueError for fewer than two leaves or more than 4096."""
    if not 2 <= len(leaves) <= 1 << MAX_DEPTH:
        raise ValueError(f"a batch of {len(leaves)} operations: sign one alone, and at most {1 << MAX_DEPTH} together")
    level = list(leaves)
    paths: list[list[bytes]] = [[] for _ in leaves]
    depth = 0
    while len(level) > 1:
        level += [_ABSENT] * (len(level) & 1)
        for index, path in enumerate(paths):
            path.append(level[(index >> depth) ^ 1])
        level = [digest("batch/node", level[i], level[i + 1]) for i in range(0, len(level), 2)]
        depth += 1
    return level[0], paths
