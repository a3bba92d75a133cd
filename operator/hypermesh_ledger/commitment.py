"""The app hash: a Merkle root over the whole state, in the form that CometBFT's light client verifies (`simple:v`).

    entry   leaf = H(0 | uvarint(len key) | key | 32 | SHA-256(value)),  inner = H(1 | left | right)   (RFC 6962)
    bucket  b = first two bytes of SHA-256(key); its root is over its entries in the order of their keys
    store   2^17 leaves: 2b = ("", bucket root), 2b+1 = ("\\0B" + b, 0x01 | key and value hash of every entry)
    app hash = the tree of stores, which has one leaf: ("ledger", store root)

The second leaf of a bucket lists its keys, so that absence can be shown too. A block touches 17 hashes a changed
bucket. Nodes (8 MiB) and listings (125 bytes an asset, which has two entries) stay in memory; on the disk is none of
it: the store hashes the whole state when it opens, so what it serves is what the app hash covers.

What is hashed for each operation is compiled (hypermesh_native); the same once more in Python, as the tests' reference:
tests/unit/ledger/commitments.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from hypermesh_native import Tree, Update, bucket_leaves, leaf, tree_root

__all__ = ["Tree", "Update", "bucket_leaves", "leaf", "tree_root"]

STORE_NAME: Final = b"ledger"
BUCKETS: Final = 1 << 16
LEAVES: Final = 2 * BUCKETS
LISTING: Final = b"\0B"
"""What the keys of second leaves begin with; no entry's key may."""

Entries = list[tuple[bytes, bytes]]
"""Keys of one bucket with the SHA-256 of their values, in the order of the keys."""
HASH: Final = 32
"""Bytes of a leaf."""


def bucket_of(key: bytes) -> bytes:
    """The two bytes that name a key's bucket."""
    return sha256(key).digest()[:2]


def listed_bucket(key: bytes) -> bytes | None:
    """The bucket whose listing a key names, None for a key of an entry."""
    return key[len(LISTING) :] if key.startswith(LISTING) and len(key) == len(LISTING) + 2 else None


def value_hash(value: bytes) -> bytes:
    """What a leaf holds of its value."""
    return sha256(value).digest()


def listing(entries: Entries) -> bytes:
    """The value of a bucket's second leaf: all its keys and value hashes; what it does not name is not there."""
    return b"\x01" + b"".join(bytes([len(key)]) + key + hashed for key, hashed in entries)


def leaves_of(entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Leaves by bucket, of all that these buckets hold: keys and values."""
    buckets: dict[bytes, Entries] = {}
    for key, value in sorted(entries.items()):
        buckets.setdefault(bucket_of(key), []).append((key, value_hash(value)))
    return {bucket: bucket_leaves(bucket, held) for bucket, held in buckets.items()}
