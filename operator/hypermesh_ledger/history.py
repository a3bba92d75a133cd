"""What the state was: one undo row a block, so that a query can be answered at any height that is still kept.

    commit of block n -> row n = what n overwrote: values (by bucket + key) and tree leaves (by bucket)
    state at h = newest state, and over it the rows h+1 ... newest; where several name a key, the oldest of them tells

WINDOW rows are kept, fewer than CometBFT keeps headers, which their proofs need (see retention). They end at the newest
block without a gap; rows that do not (an older program has committed since) are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self, TypeVar

from hypermesh.digests import u64
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment
from hypermesh_ledger.commitment import Entries, Tree
from hypermesh_ledger.errors import HeightNotKept
from hypermesh_ledger.merkle import Proof, prove_absent, prove_present

WINDOW: Final = 1_000
"""Blocks that can be undone."""
PRUNED_AT_ONCE: Final = 64
"""Rows that one commit drops at most, so that no block is slow after a pause."""
AT_ONCE: Final = 64
"""Entries of a row, or buckets of the tree, that a look back does between two looks at the clock."""
WORK_S: Final = 0.001
"""How long a look back works before it rests: it holds the interpreter's lock, and blocks wait for that."""

Item = TypeVar("Item")


def prune(transaction: Any, history: Any, head: int) -> None:
    """Drop rows that no height in the window needs, oldest first."""
    with transaction.cursor(history) as cursor:
        for _ in range(PRUNED_AT_ONCE):
            if not cursor.first() or int.from_bytes(cursor.key(), "big") > head - WINDOW:
                return
            cursor.delete()


def begins(transaction: Any, history: Any, head: int) -> int:
    """The lowest height that can be read."""
    with transaction.cursor(history) as cursor:
        return int.from_bytes(cursor.key(), "big") - 1 if cursor.first() else head


def ends(transaction: Any, history: Any) -> int | None:
    """The height of the newest row, None without rows."""
    with transaction.cursor(history) as cursor:
        return int.from_bytes(cursor.key(), "big") if cursor.last() else None


class Past:
    """The state at one height, readable between `__enter__` and `__exit__`, both in the same thread."""

    def __init__(self, environment: Any, databases: tuple[Any, Any], tree: Tree, height: int, head: int) -> None:
        """databases: state, history. tree: a copy of the state's tree at height `head`, the newest."""
        self._environment = environment
        self._state, self._history = databases
        self._tree = tree
        self._head = head
        self._rewound = False
        self._began = 0.0
        self.height = height

    def __enter__(self) -> Self:
        """Raises HeightNotKept. The database may be ahead of the tree by now: rows tell the same of both."""
        self._began = time.perf_counter()
        self._transaction = self._environment.begin(buffers=False)
        try:
            check_kept(self.height, begins(self._transaction, self._history, self._head), self._head)
        except HeightNotKept:
            self._transaction.abort()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._transaction.abort()

    def database_bytes(self) -> int:
        """Pages of the newest state's values on the disk: about what a snapshot takes."""
        with self._environment.begin() as transaction:
            found = transaction.stat(self._state)
        pages = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return int(pages * found["psize"])

    def get(self, key: bytes) -> bytes | None:
        """The value at that height."""
        return self._value(key, self._changed(commitment.bucket_of(key), {}))

    def prove(self, key: bytes) -> Proof:
        """Value or absence of any key that the state could hold; all of a bucket for the key of its listing."""
        listed = commitment.listed_bucket(key)
        bucket = listed or commitment.bucket_of(key)
        entries = self._rewind(bucket)
        names = [name for name, _ in entries]
        if listed or key not in names:
            return prove_absent(self._tree, bucket, entries)
        return prove_present(self._tree, bucket, entries, names.index(key), self._found)

    def part(self, first: bytes, buckets: int, parts: int) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """Entries of as many buckets from `first` on, and the aunts of the subtree that they are: one of `parts`."""
        if not self._rewound:
            leaves: dict[bytes, bytes] = {}
            self._olds = self._changed(b"", leaves)
            self._set_back(leaves)
            self._rewound = True
        low = int.from_bytes(first, "big")
        names = set(self._tree.names(low, low + buckets))
        names |= {key for key in self._olds if low <= int.from_bytes(commitment.bucket_of(key), "big") < low + buckets}
        values = ((key, self._value(key, self._olds)) for key in sorted(names))
        return [(key, value) for key, value in values if value], self._tree.aunts(low // buckets, parts)

    def _rewind(self, bucket: bytes) -> Entries:
        """The bucket's entries; the tree is set back, and `_found` reads values."""
        leaves: dict[bytes, bytes] = {}
        self._olds = self._changed(bucket, leaves)
        self._set_back(leaves)
        held = dict(self._tree.entries(bucket))
        for key, value in self._olds.items():
            held.pop(key, None)
            if value:
                held[key] = commitment.value_hash(value)
        return sorted(held.items())

    def _found(self, key: bytes) -> bytes:
        value = self._value(key, self._olds)
        assert value is not None  # the bucket lists it
        return value

    def _value(self, key: bytes, olds: dict[bytes, bytes]) -> bytes | None:
        if key in olds:
            return olds[key] or None
        value: bytes | None = self._transaction.get(key, db=self._state)
        return value

    def _set_back(self, leaves: dict[bytes, bytes]) -> None:
        """Neighbours together, as they share most of their way to the root."""
        for some in self._paced(sorted(leaves)):
            self._tree.set_back({bucket: leaves[bucket] for bucket in some})

    def _paced(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """A few at a time, and rests as long as the work before them."""
        for first in range(0, len(items), AT_ONCE):
            yield items[first : first + AT_ONCE]
            worked = time.perf_counter() - self._began
            if worked > WORK_S:
                time.sleep(worked)
                self._began = time.perf_counter()

    def _changed(self, bucket: bytes, leaves: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Values at this height of the bucket's keys that changed since; `leaves` gets those of all buckets."""
        values: dict[bytes, bytes] = {}
        with self._transaction.cursor(self._history) as cursor:
            if cursor.set_range(u64(self.height + 1)):
                for _, row in cursor:
                    undo = ledger_pb2.Undo.FromString(row)
                    for some in self._paced(undo.values):
                        for entry in some:
                            if entry.key.startswith(bucket):
                                values.setdefault(entry.key[2:], entry.value)
                    for some in self._paced(undo.leaves):
                        for entry in some:
                            if entry.key not in leaves:
                                leaves[entry.key] = entry.value or commitment.bucket_leaves(entry.key, [])
        return values


def check_kept(height: int, lowest: int, newest: int) -> None:
    """Raises HeightNotKept."""
    if not lowest <= height <= newest or height < 1:
        raise HeightNotKept(
            f"The ledger can't show height {height}: it keeps {max(lowest, 1)} to {newest}. Ask for one of these."
        )
