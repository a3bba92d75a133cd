"""Merkle trees over the tiles of one matrix product: 2^d leaves, binary, leaves and nodes in their own domains.

Hashes equal ``digest("work/leaf", index, values)`` and ``digest("work/node", left, right)``; the constant parts of
their preimages are laid out once, as a prover hashes a hundred thousand of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from hypermesh.digests import preimage, u64

_LEAF = preimage("work/leaf")
_NODE = preimage("work/node") + u64(32)
_BETWEEN = u64(32)
_INDEX = u64(4)


def leaf_hash(index: int, values: bytes) -> bytes:
    """Hash of the tile `index` (u32) with its `values`; 32 bytes."""
    return hashlib.sha256(_LEAF + _INDEX + index.to_bytes(4, "big") + len(values).to_bytes(8, "big") + values).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two children, 32 bytes each."""
    return hashlib.sha256(_NODE + left + _BETWEEN + right).digest()


def build(leaves: Iterable[bytes]) -> list[list[bytes]]:
    """All levels of the tree, leaf hashes first, the root alone last. ValueError unless 2^d leaves, d ≥ 0."""
    level = list(leaves)
    if not level or len(level) & (len(level) - 1):
        raise ValueError(f"a tree of {len(level)} leaves: a power of two is needed")
    levels = [level]
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(level)
    return levels


def path(levels: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """Sibling hashes of leaf `index`, leaf level first."""
    siblings = []
    for level in levels[:-1]:
        siblings.append(level[index ^ 1])
        index >>= 1
    return siblings


def root_of(leaf: bytes, index: int, siblings: Iterable[bytes]) -> bytes:
    """The root that `leaf` at `index` has, if `siblings` are right."""
    node = leaf
    for sibling in siblings:
        node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        index >>= 1
    return node
