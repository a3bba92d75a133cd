"""The compiled commitment against the same in Python: every hash, bit for bit, in whatever order blocks come."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh_ledger import commitment
from hypermesh_ledger.commitment import Entries

from . import commitments as reference


@cache
def in_one_bucket(count: int) -> tuple[bytes, ...]:
    """Keys that share the bucket of b"k"."""
    found, number = [b"k"], 0
    while len(found) < count:
        number += 1
        if reference.bucket_of(key := b"k/%d" % number) == reference.bucket_of(b"k"):
            found.append(key)
    return tuple(found)


class Both:
    """A state's buckets and trees, of the program and of the reference."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.ours, self.theirs = commitment.Tree(()), reference.Tree(())

    def held(self, bucket: bytes) -> Entries:
        return sorted((key, hashed) for key, hashed in self.entries.items() if reference.bucket_of(key) == bucket)

    def rows(self, buckets: Sequence[bytes]) -> list[bytes]:
        held = [(bucket, self.held(bucket)) for bucket in buckets]
        return [reference.bucket_row(bucket, entries) if entries else b"" for bucket, entries in held]

    def block(self, writes: dict[bytes, bytes | None]) -> None:
        ours = commitment.bucket_changes(writes, self.rows)
        theirs = reference.bucket_changes(writes, self.held)
        assert ours == theirs
        one, other = self.ours.update(ours[0]), self.theirs.update(theirs[0])
        assert one.app_hash == other.app_hash
        before = self.ours.app_hash
        assert before == self.theirs.app_hash
        self.ours.apply(one)
        self.theirs.apply(other)
        assert self.ours.app_hash == other.app_hash
        for key, value in writes.items():
            self.entries.pop(key, None)
            if value is not None:
                self.entries[key] = sha256(value).digest()

    def used(self) -> dict[bytes, bytes]:
        buckets = {reference.bucket_of(key) for key in self.entries}
        return {bucket: reference.bucket_row(bucket, self.held(bucket)) for bucket in buckets}


KEYS = st.one_of(st.sampled_from(in_one_bucket(6)), st.binary(min_size=1, max_size=127))
WRITES = st.dictionaries(KEYS, st.none() | st.sampled_from([b"1", b"2"]) | st.binary(max_size=200), max_size=12)


@settings(deadline=None, max_examples=40)
@given(st.lists(WRITES, max_size=5))
def test_blocks_have_the_references_app_hashes(blocks: list[dict[bytes, bytes | None]]) -> None:
    state = Both()
    for writes in blocks:
        state.block(writes)
    built = commitment.Tree(state.used().items())
    assert built.app_hash == state.ours.app_hash
    for index in (0, 1, commitment.LEAVES - 1, 2 * int.from_bytes(reference.bucket_of(b"k"), "big")):
        assert built.aunts(index) == state.ours.aunts(index) == state.theirs.aunts(index)
        assert state.ours.aunts(index >> 11, 64) == state.theirs.aunts(index >> 11, 64)


def test_large_blocks_have_the_references_app_hashes() -> None:
    chance, state = random.Random(3), Both()
    state.held = {}.get  # type: ignore[assignment, method-assign]
    keys = [b"asset/%d" % number for number in range(1_500)]
    for _ in range(4):
        by_bucket: dict[bytes, Entries] = {}
        for key, hashed in sorted(state.entries.items()):
            by_bucket.setdefault(reference.bucket_of(key), []).append((key, hashed))
        state.held = lambda bucket, by_bucket=by_bucket: by_bucket.get(bucket, [])  # type: ignore[misc]
        some = chance.sample(keys, 900)
        state.block({key: chance.choice([None, chance.randbytes(300)]) for key in some})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=255), st.binary(min_size=32, max_size=32)), max_size=40, unique_by=lambda e: e[0]
    )
)
def test_buckets_have_the_references_rows(entries: Entries) -> None:
    entries.sort()
    row = commitment.bucket_row(b"ab", entries)
    assert row == reference.bucket_row(b"ab", entries)
    assert commitment.row_entries(b"ab", row) == entries
    leaves = [reference.leaf(key, hashed) for key, hashed in entries]
    assert [commitment.leaf(key, hashed) for key, hashed in entries] == leaves
    assert commitment.tree_root(leaves) == reference.tree_root(leaves)
    assert commitment.listing(entries) == reference.listing(entries)


def test_a_copy_is_not_moved_and_moves_nothing() -> None:
    tree = commitment.Tree([(b"ab", b"x" * 64)])
    first, copy = tree.app_hash, tree.copy()
    tree.apply(tree.update({b"ab": b"y" * 64, b"\xff\xff": b"z" * 64}))
    second = tree.app_hash
    assert (copy.app_hash, copy.aunts(0)) == (first, commitment.Tree([(b"ab", b"x" * 64)]).aunts(0))
    copy.apply(copy.update({b"\0\0": b"w" * 64}))
    assert tree.app_hash == second != first != copy.app_hash


def test_an_update_changes_nothing_before_it_is_applied() -> None:
    tree = commitment.Tree(())
    before = tree.app_hash
    update = tree.update({b"ab": b"y" * 64})
    assert tree.app_hash == before != update.app_hash
    assert tree.update({}).app_hash == before


COLLECTED = """
import gc
from hypermesh_native import Tree
class Cycle:
    def __del__(self):
        asked.append(tree.app_hash)
tree, asked, leaves = Tree([]), [], {b"ab": bytes(64)}
gc.collect()
gc.disable()
unused = [{} for _ in range(1_000)]  # the next dict comes from none that was thrown away
one = Cycle()
one.one = one
del one
gc.set_threshold(1)
gc.enable()
tree.update(leaves)
gc.collect()
print(len(asked))
"""


def test_what_the_collector_runs_meanwhile_may_ask_the_tree() -> None:
    """CPython 3.11 collects within an allocation, so also within `update`; in a process, as a deadlock ends none."""
    ended = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "1\n"


@pytest.mark.parametrize("index", [(commitment.LEAVES,), (64, 64), (0, 63), (0, 2 * commitment.LEAVES), (0, 0)])
def test_parts_that_no_tree_has_are_told(index: tuple[int, ...]) -> None:
    with pytest.raises(IndexError, match="no part"):
        commitment.Tree(()).aunts(*index)


def test_what_is_no_hash_bucket_or_key_is_told() -> None:
    with pytest.raises(ValueError, match="a hash of 31 bytes"):
        commitment.leaf(b"k", bytes(31))
    with pytest.raises(ValueError, match="a key of 256 bytes"):
        commitment.leaf(bytes(256), bytes(32))
    with pytest.raises(ValueError, match="a bucket of 3 bytes"):
        commitment.Tree([(b"abc", bytes(64))])
    with pytest.raises(ValueError, match="leaves of 63 bytes"):
        commitment.Tree(()).update({b"ab": bytes(63)})
    with pytest.raises(ValueError, match="2 rows for the changes of 1 buckets"):
        commitment.bucket_changes({b"k": b"v"}, lambda _: [b"", b""])
    with pytest.raises(TypeError):
        commitment.bucket_changes({b"k": "v"}, lambda _: [])  # type: ignore[dict-item]


@given(st.integers(1, 136), st.integers(0, 136), st.binary(min_size=1, max_size=3))
def test_damaged_rows_are_told(length: int, at: int, more: bytes) -> None:
    entries = [(b"a/1", bytes(32)), (b"a/22", bytes(32))]
    row = commitment.bucket_row(b"ab", entries)
    flipped = row[:at] + bytes([row[at] ^ 1]) + row[at + 1 :]
    for bucket, damaged in ((b"ab", row[:length]), (b"ab", row + more), (b"ac", row)):
        with pytest.raises(ValueError, match="is damaged"):
            commitment.row_entries(bucket, damaged)
    if at >= 32:  # the first leaf is the tree's to check
        with pytest.raises(ValueError, match="is damaged"):
            commitment.row_entries(b"ab", flipped)
    assert commitment.row_entries(b"ab", b"") == []
