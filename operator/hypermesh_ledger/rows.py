"""The state's buckets on disk: one row each, all that a block needs of it (see commitment).

An older program kept a bucket's leaves and each of its entries apart (databases `tree` and `hashes`): what it has
left is made into rows when the store is opened, once, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import lmdb

from hypermesh_ledger import commitment

_OLD: Final = (b"hashes", b"tree")


def read(transaction: Any, rows: Any, buckets: Iterable[bytes]) -> list[bytes]:
    """Of these buckets in the newest state; no bytes for one that never held anything."""
    return [transaction.get(bucket, default=b"", db=rows) for bucket in buckets]


def of_entries(entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Rows by bucket, of all that these buckets hold."""
    buckets: dict[bytes, commitment.Entries] = {}
    for key, value in sorted(entries.items()):
        buckets.setdefault(commitment.bucket_of(key), []).append((key, commitment.value_hash(value)))
    return {bucket: commitment.bucket_row(bucket, held) for bucket, held in buckets.items()}


def names(transaction: Any, rows: Any, first: int, after: int) -> Sequence[bytes]:
    """All keys in the buckets from `first` to before `after`."""
    found: list[bytes] = []
    with transaction.cursor(rows) as cursor:
        if cursor.set_range(first.to_bytes(2, "big")):
            for bucket, row in cursor:
                if int.from_bytes(bucket, "big") >= after:
                    break
                found += (key for key, _ in commitment.row_entries(bucket, row))
    return found


def take_over(environment: Any, rows: Any) -> None:
    """Make rows of what an older program has left, and drop that. Raises lmdb.Error, ValueError for what is damaged."""
    try:
        hashes, tree = (environment.open_db(name, create=False) for name in _OLD)
    except lmdb.NotFoundError:
        return
    with environment.begin(write=True) as transaction:
        with transaction.cursor(hashes) as cursor:
            for bucket, held in groupby(cursor, key=lambda entry: entry[0][:2]):
                row = commitment.bucket_row(bucket, [(name[2:], hashed) for name, hashed in held])
                transaction.put(bucket, row, db=rows)
        transaction.drop(hashes)
        transaction.drop(tree)
