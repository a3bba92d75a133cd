"""State on disk: atomic blocks, an app hash that covers every entry, snapshots that don't move."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.errors import StoreUnusable
from hypermesh_ledger.state import Fork, Memory, Writes
from hypermesh_ledger.store import Store


def apply(store: Store, height: int, writes: Writes) -> bytes:
    prepared = store.prepare(height, height * 1000, writes)
    store.commit(prepared)
    store.advance(prepared)
    return store.head.app_hash


def rfc6962(leaves: list[bytes]) -> bytes:
    """The tree hash again, from the RFC's definition."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\1" + rfc6962(leaves[:k]) + rfc6962(leaves[k:])).digest()


def expected_app_hash(entries: dict[bytes, bytes]) -> bytes:
    """The whole commitment again, from its description, without any of its code."""

    def leaf(key: bytes, value: bytes) -> bytes:
        return sha256(b"\0" + bytes([len(key)]) + key + b"\x20" + sha256(value).digest()).digest()

    buckets: list[dict[bytes, bytes]] = [{} for _ in range(1 << 16)]
    for key, value in entries.items():
        buckets[int.from_bytes(sha256(key).digest()[:2], "big")][key] = value
    leaves = []
    for number, held in enumerate(buckets):
        root = rfc6962([leaf(key, held[key]) for key in sorted(held)])
        listing = b"".join(bytes([len(k)]) + k + sha256(held[k]).digest() for k in sorted(held))
        leaves.append(leaf(b"", root))
        leaves.append(leaf(b"\0B" + number.to_bytes(2, "big"), b"\1" + listing))
    return leaf(b"ledger", rfc6962(leaves))


def test_the_app_hash_is_what_its_description_says(tmp_path: Path) -> None:
    chance = random.Random(7)
    store = Store(tmp_path)
    entries: dict[bytes, bytes] = {}
    for height in range(1, 6):
        writes: Writes = {b"k/%d" % chance.randrange(400): chance.randbytes(9) for _ in range(150)}
        writes |= dict.fromkeys(chance.sample(sorted(entries), min(len(entries), 20)))
        apply(store, height, writes)
        for key, value in writes.items():
            entries.pop(key, None)
            if value is not None:
                entries[key] = value
    assert store.head.app_hash == expected_app_hash(entries)
    store.close()
    again = Store(tmp_path)
    assert (again.head.app_hash, again.head.height) == (expected_app_hash(entries), 5)
    again.close()


def test_the_order_of_history_does_not_matter(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "1"), Store(tmp_path / "2")
    apply(one, 1, {b"a": b"1", b"b": b"2"})
    apply(other, 1, {b"b": b"2", b"c": b"3"})
    apply(other, 2, {b"a": b"1", b"c": None})
    assert one.head.app_hash == other.head.app_hash
    one.close()
    other.close()


def test_preparing_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = apply(store, 1, {b"a": b"1"})
    store.prepare(2, 2, {b"a": b"2"})
    assert (store.head.app_hash, store.snapshot.get(b"a")) == (before, b"1")
    store.close()


def test_readers_see_a_block_only_when_it_is_advanced_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    apply(store, 1, {b"a": b"1"})
    prepared = store.prepare(2, 2_000, {b"a": b"2", b"b": b"3"})
    store.commit(prepared)
    assert (store.snapshot.get(b"a"), store.snapshot.get(b"b"), store.head.height) == (b"1", None, 1)
    store.advance(prepared)
    assert (store.snapshot.get(b"a"), store.head.height) == (b"2", 2)
    store.close()


@pytest.mark.parametrize(
    ("key", "damaged"), [(b"a", b"2"), (b"a", None), (b"b", b"1"), (b"a", b"")], ids=["other", "lost", "more", "cut"]
)
def test_a_damaged_state_is_not_served(tmp_path: Path, key: bytes, damaged: bytes | None) -> None:
    """Whatever was changed on the disk: the next app hash would be nobody else's."""
    store = Store(tmp_path)
    apply(store, 1, {b"a": b"1"})
    store.close()
    environment = lmdb.open(str(tmp_path), max_dbs=8)
    state = environment.open_db(b"state")
    with environment.begin(write=True) as transaction:
        transaction.delete(key, db=state)
        if damaged is not None:
            transaction.put(key, damaged, db=state)
    environment.close()
    with pytest.raises(StoreUnusable, match=r"do not give its app hash.*Restore a backup"):
        Store(tmp_path)


def test_what_older_programs_kept_of_the_tree_is_dropped(tmp_path: Path) -> None:
    """One of them a row for each bucket, the one before it leaves and entries apart."""
    store = Store(tmp_path)
    held = {b"k/%d" % number: b"v" for number in range(500)}
    apply(store, 1, dict(held))
    apply(store, 2, {b"k/7": None, b"k/8": b"new"})
    app_hash = store.head.app_hash
    store.close()
    environment = lmdb.open(str(tmp_path), max_dbs=8)
    for name in (b"rows", b"hashes", b"tree"):
        database = environment.open_db(name)
        with environment.begin(write=True) as transaction:
            transaction.put(b"ab", bytes(200), db=database)
    environment.close()
    for _ in range(2):
        store = Store(tmp_path)
        assert store.head.app_hash == app_hash
        with store.past(1) as past:
            assert (past.get(b"k/7"), past.prove(b"k/8").value) == (b"v", b"v")
        store.close()
    environment = lmdb.open(str(tmp_path), max_dbs=8)
    with environment.begin() as transaction:
        assert {name for name, _ in transaction.cursor()} == {b"meta", b"state", b"history", b"outcomes"}
    environment.close()
    store = Store(tmp_path)
    apply(store, 3, {b"k/7": b"v", b"k/8": b"v"})
    assert store.head.app_hash == expected_app_hash(held)
    store.close()


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="Free space"):
        Store(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    ("key", "value"), [(b"", b"v"), (b"k" * 128, b"v"), (b"x:k", b"v"), (b"\0Bk", b"v"), (b"k", b"")]
)
def test_what_could_not_be_proven_is_not_written(key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="proven"):
        Fork(Memory()).put(key, value)


key_sets = st.dictionaries(st.sampled_from([b"a/1", b"a/2", b"a/3", b"b/1", b"b/2"]), st.none() | st.just(b"w"))


@settings(deadline=None)
@given(st.sets(st.sampled_from([b"a/1", b"a/2", b"b/1"])), key_sets)
def test_forks_read_like_the_state_they_will_become(held: set[bytes], writes: dict[bytes, bytes | None]) -> None:
    base = Memory(dict.fromkeys(held, b"v"))
    fork = Fork(base)
    for key, value in writes.items():
        if value is None:
            fork.delete(key)
        else:
            fork.put(key, value)
    merged = Memory(base.entries)
    merged.write(fork.writes)
    for prefix in (b"", b"a/", b"b/", b"c/"):
        assert list(fork.scan(prefix)) == list(merged.scan(prefix))
    assert all(fork.get(key) == merged.get(key) for key in (b"a/1", b"a/2", b"a/3", b"b/1", b"b/2"))


def test_the_store_scans_like_memory(tmp_path: Path) -> None:
    entries = {b"a/1": b"1", b"a/2": b"2", b"b/1": b"3"}
    store = Store(tmp_path)
    apply(store, 1, dict(entries))
    for prefix in (b"", b"a/", b"b/", b"c"):
        assert list(store.snapshot.scan(prefix)) == list(Memory(entries).scan(prefix))
    assert list(store.snapshot.scan(b"a/", b"a/1")) == [(b"a/2", b"2")]
    assert list(store.snapshot.scan(b"a/", b"a/2")) == []
    store.close()


def test_derived_entries_are_in_no_hash_and_made_anew(tmp_path: Path) -> None:
    """A program that knows of none may have written the state; it must not matter for any validator's execution."""
    device, other = b"d" * 32, b"o" * 32
    registration = ledger_pb2.RegisterAsset(asset_id=b"a" * 32, work_device=device)
    asset = ledger_pb2.AssetRecord(registration=registration).SerializeToString()
    entries: Writes = {keys.asset(b"a" * 32): asset, b"zoo": b"z"}
    index: Writes = {keys.device(device, b"a" * 32): keys.PRESENT}
    store = Store(tmp_path)
    with_it, without = store.prepare(1, 1, entries | index), store.prepare(1, 1, entries)
    assert with_it.head.app_hash == without.head.app_hash
    assert with_it.undo == without.undo
    store.commit(without)  # as the program did that knows of no index
    store.advance(without)
    with store._environment.begin(write=True) as transaction:
        transaction.put(keys.device(other, b"a" * 32), keys.PRESENT, db=store._state)  # of before it ran
        transaction.delete(b"derived", db=store._meta)
    store.close()
    for _ in range(2):
        store = Store(tmp_path)
        assert [key for key, _ in store.snapshot.scan(keys.DEVICE)] == list(index)
        assert store.snapshot.get(keys.asset(b"a" * 32)) == asset
        store.close()
