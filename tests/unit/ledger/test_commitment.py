"""The compiled commitment against the same in Python: every hash, bit for bit, in whatever order blocks come."""

from __future__ import annotations

import random
import subprocess
import sys
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.v1 import ledger_pb2
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
    """A state and its trees, of the program and of the reference."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.buckets: dict[bytes, dict[bytes, bytes]] = {}
        self.ours, self.theirs = commitment.Tree(()), reference.Tree(())

    def held(self, bucket: bytes) -> Entries:
        return sorted(self.buckets.get(bucket, {}).items())

    def block(self, writes: dict[bytes, bytes | None]) -> None:
        update, (rows, changed) = self.ours.update(writes), reference.bucket_changes(writes, self.held)
        other = self.theirs.update(rows)
        assert update.app_hash == other.app_hash
        undo = ledger_pb2.Undo(
            values=[ledger_pb2.Undo.Entry(key=each, value=self.values.get(each[2:], b"")) for each in changed],
            leaves=[
                ledger_pb2.Undo.Entry(key=each, value=reference.bucket_leaves(each, self.held(each))) for each in rows
            ],
        )
        assert update.undo(self.values.get) == undo.SerializeToString()
        before = self.ours.app_hash
        assert before == self.theirs.app_hash
        self.ours.apply(update)
        self.theirs.apply(other)
        assert self.ours.app_hash == other.app_hash
        self._write(writes)
        for bucket in rows:
            assert self.ours.entries(bucket) == self.held(bucket)
        back = self.ours.copy()
        back.set_back({each.key: each.value for each in undo.leaves})
        assert back.app_hash == before

    def _write(self, writes: dict[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            bucket = self.buckets.setdefault(reference.bucket_of(key), {})
            self.values.pop(key, None)
            bucket.pop(key, None)
            if value is not None:
                self.values[key], bucket[key] = value, sha256(value).digest()


KEYS = st.one_of(st.sampled_from(in_one_bucket(6)), st.binary(min_size=1, max_size=127))
WRITES = st.dictionaries(KEYS, st.none() | st.sampled_from([b"1", b"2"]) | st.binary(max_size=200), max_size=12)


@settings(deadline=None, max_examples=40)
@given(st.lists(WRITES, max_size=5))
def test_blocks_have_the_references_app_hashes(blocks: list[dict[bytes, bytes | None]]) -> None:
    state = Both()
    for writes in blocks:
        state.block(writes)
    built = commitment.Tree(sorted(state.values.items()))
    half = commitment.BUCKETS // 2
    names = built.names(0, half) + built.names(half, commitment.BUCKETS)
    assert sorted(names) == sorted(state.values)
    assert built.app_hash == state.ours.app_hash
    for index in (0, 1, commitment.LEAVES - 1, 2 * int.from_bytes(reference.bucket_of(b"k"), "big")):
        assert built.aunts(index) == state.ours.aunts(index) == state.theirs.aunts(index)
        assert state.ours.aunts(index >> 11, 64) == state.theirs.aunts(index >> 11, 64)


def test_large_blocks_have_the_references_app_hashes() -> None:
    chance, state = random.Random(3), Both()
    keys = [b"asset/%d" % number for number in range(1_500)]
    for size in (0, 127, 128, 300, 20_000):
        state.block({key: chance.choice([None, chance.randbytes(size)]) for key in chance.sample(keys, 900)})


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=255), st.binary(min_size=32, max_size=32)), max_size=40, unique_by=lambda e: e[0]
    )
)
def test_buckets_have_the_references_leaves(entries: Entries) -> None:
    entries.sort()
    assert commitment.bucket_leaves(b"ab", entries) == reference.bucket_leaves(b"ab", entries)
    leaves = [reference.leaf(key, hashed) for key, hashed in entries]
    assert [commitment.leaf(key, hashed) for key, hashed in entries] == leaves
    assert commitment.tree_root(leaves) == reference.tree_root(leaves)
    assert commitment.listing(entries) == reference.listing(entries)


def test_a_copy_is_not_moved_and_moves_nothing() -> None:
    tree = commitment.Tree([(b"k", b"1")])
    bucket = commitment.bucket_of(b"k")
    first, copy = tree.app_hash, tree.copy()
    tree.apply(tree.update({b"k": b"2", b"other": b"3"}))
    second = tree.app_hash
    assert (copy.app_hash, copy.aunts(0)) == (first, commitment.Tree([(b"k", b"1")]).aunts(0))
    assert copy.entries(bucket) == [(b"k", commitment.value_hash(b"1"))]
    copy.apply(copy.update({b"k": None}))
    assert copy.app_hash == commitment.Tree(()).app_hash
    assert tree.app_hash == second != first
    assert tree.entries(bucket) == [(b"k", commitment.value_hash(b"2"))]


def test_an_update_changes_nothing_before_it_is_applied() -> None:
    tree = commitment.Tree(())
    before = tree.app_hash
    update = tree.update({b"k": b"y"})
    assert tree.app_hash == before != update.app_hash
    nothing = tree.update({}), tree.update({b"absent": None})
    assert [(each.app_hash, each.undo({}.get)) for each in nothing] == 2 * [(before, b"")]


COLLECTED = """
import gc
from hypermesh_native import Tree
class Cycle:
    def __del__(self):
        asked.append(tree.app_hash)
tree, asked, writes = Tree([]), [], {b"k": b"v"}
gc.collect()
gc.disable()
unused = [{} for _ in range(1_000)]  # the next dict comes from none that was thrown away
one = Cycle()
one.one = one
del one
gc.set_threshold(1)
gc.enable()
tree.apply(tree.update(writes))
tree.names(0, 65536), tree.entries(b"ab"), tree.aunts(0)
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
    tree = commitment.Tree(())
    with pytest.raises(ValueError, match="a hash of 31 bytes"):
        commitment.leaf(b"k", bytes(31))
    with pytest.raises(ValueError, match="a key of 256 bytes"):
        commitment.leaf(bytes(256), bytes(32))
    with pytest.raises(ValueError, match="a key of 256 bytes"):
        commitment.Tree([(bytes(256), b"")])
    with pytest.raises(ValueError, match="a key of 256 bytes"):
        tree.update({bytes(256): b""})
    with pytest.raises(ValueError, match="a bucket of 3 bytes"):
        tree.entries(b"abc")
    with pytest.raises(ValueError, match="leaves of 63 bytes"):
        tree.set_back({b"ab": bytes(63)})
    with pytest.raises(TypeError):
        tree.update({b"k": "v"})  # type: ignore[dict-item]


@pytest.mark.parametrize("entries", [[(b"b", b"1"), (b"a", b"1")], [(b"a", b"1"), (b"a", b"2")]])
def test_entries_that_are_not_in_order_are_told(entries: Entries) -> None:
    with pytest.raises(ValueError, match="not in the order"):
        commitment.Tree(entries)


@pytest.mark.parametrize(("first", "after"), [(1, 0), (0, commitment.BUCKETS + 1)])
def test_buckets_that_no_tree_has_are_told(first: int, after: int) -> None:
    with pytest.raises(IndexError, match="no buckets"):
        commitment.Tree(()).names(first, after)
