"""The commitment again in Python, as it was before it was compiled: what tests compare hypermesh_native with.

Slow and plain; what is hashed and why is told in hypermesh_ledger.commitment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

STORE_NAME: Final = b"ledger"
BUCKETS: Final = 1 << 16
LEAVES: Final = 2 * BUCKETS
LISTING: Final = b"\0B"
"""What the keys of second leaves begin with; no entry's key may."""
_HASH: Final = 32

Entries = list[tuple[bytes, bytes]]
"""Keys of one bucket with the SHA-256 of their values, in the order of the keys."""


def bucket_of(key: bytes) -> bytes:
    """The two bytes that name a key's bucket."""
    return sha256(key).digest()[:2]


def leaf(key: bytes, hashed: bytes) -> bytes:
    """`simple:v` leaf; the key is shorter than 128 bytes, so its length is one byte."""
    return sha256(b"\0" + bytes([len(key)]) + key + b"\x20" + hashed).digest()


def bucket_leaves(bucket: bytes, entries: Entries) -> bytes:
    """64 bytes: the two store leaves of a bucket."""
    root = tree_root([leaf(key, hashed) for key, hashed in entries])
    return leaf(b"", sha256(root).digest()) + leaf(LISTING + bucket, sha256(listing(entries)).digest())


def bucket_row(bucket: bytes, entries: Entries) -> bytes:
    """Both leaves, and what the second is of."""
    return bucket_leaves(bucket, entries) + listing(entries)


def listing(entries: Entries) -> bytes:
    """The value of a bucket's second leaf: all its keys and value hashes; what it does not name is not there."""
    return b"\x01" + b"".join(bytes([len(key)]) + key + hashed for key, hashed in entries)


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 tree hash of leaf hashes."""
    count = len(hashes)
    if count == 0:
        return sha256().digest()
    if count == 1:
        return hashes[0]
    split = 1 << (count - 1).bit_length() - 1
    return sha256(b"\1" + tree_root(hashes[:split]) + tree_root(hashes[split:])).digest()


class Tree:
    """The store's tree, complete and in memory: node 1 is the root, node i has children 2i and 2i+1."""

    def __init__(self, used: Iterable[tuple[bytes, bytes]]) -> None:
        """used: (bucket, its row) of every bucket that holds a key."""
        level = _empty_leaves()
        for bucket, row in used:
            index = 2 * int.from_bytes(bucket, "big")
            level[index], level[index + 1] = row[:_HASH], row[_HASH : 2 * _HASH]
        levels = [level]
        while len(level) > 1:
            nodes = iter(level)
            level = [sha256(b"\1" + left + right).digest() for left, right in zip(nodes, nodes, strict=True)]
            levels.append(level)
        self._nodes = [b"", *(node for each in reversed(levels) for node in each)]

    def aunts(self, index: int, parts: int = LEAVES) -> list[bytes]:
        """Siblings of one of 2^n subtrees and of all above it, its own first."""
        nodes, found = self._nodes, []
        node = parts + index
        while node > 1:
            found.append(nodes[node ^ 1])
            node //= 2
        return found

    @property
    def app_hash(self) -> bytes:
        """32 bytes."""
        return _app_hash(self._nodes[1])

    def update(self, rows: Mapping[bytes, bytes]) -> Update:
        """What changes when these buckets' rows do; nothing changes before `apply`."""
        changed: dict[int, bytes] = {}
        for bucket, row in rows.items():
            index = LEAVES + 2 * int.from_bytes(bucket, "big")
            changed[index], changed[index + 1] = row[:_HASH], row[_HASH : 2 * _HASH]
        level = {index >> 1 for index in changed}
        nodes, known = self._nodes, changed.get
        while level and 0 not in level:
            for index in level:
                left = index + index
                right = left + 1
                children = b"\1" + (known(left) or nodes[left]) + (known(right) or nodes[right])
                changed[index] = sha256(children).digest()
            level = {index >> 1 for index in level}
        return Update(changed, _app_hash(known(1) or nodes[1]))

    def apply(self, update: Update) -> None:
        """Make an update of this tree's current state true."""
        nodes = self._nodes
        for index, value in update.nodes.items():
            nodes[index] = value


class Update:
    """The next state of a Tree: changed nodes and the app hash."""

    __slots__ = ("app_hash", "nodes")

    def __init__(self, nodes: dict[int, bytes], app_hash: bytes) -> None:
        self.nodes = nodes
        self.app_hash = app_hash


def bucket_changes(
    writes: Mapping[bytes, bytes | None], entries: Callable[[bytes], Entries]
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """From a block's writes: new rows by bucket, and the keys written there, each behind its bucket.

    entries(bucket) gives what a bucket held before.
    """
    by_bucket: dict[bytes, dict[bytes, bytes | None]] = {}
    for key, value in sorted(writes.items()):
        hashed = None if value is None else sha256(value).digest()
        by_bucket.setdefault(bucket_of(key), {})[key] = hashed
    rows: dict[bytes, bytes] = {}
    changed: list[bytes] = []
    for bucket, changes in sorted(by_bucket.items()):
        before = dict(entries(bucket))
        after = {key: value for key, value in (before | changes).items() if value is not None}
        if after != before:
            rows[bucket] = bucket_row(bucket, sorted(after.items()))
            changed += (bucket + key for key in changes)
    return rows, changed


def _empty_leaves() -> list[bytes]:
    """`bucket_leaves` of every bucket, all empty."""
    root, listing = bucket_leaves(b"\0\0", [])[:_HASH], b"\x20" + sha256(b"\x01").digest()
    leaves: list[bytes] = []
    for number in range(BUCKETS):
        leaves.append(root)
        leaves.append(sha256(b"\0\x04\0B" + number.to_bytes(2, "big") + listing).digest())
    return leaves


def _app_hash(store_root: bytes) -> bytes:
    return leaf(STORE_NAME, sha256(store_root).digest())
