"""Proofs of the state at any kept height: what is there can be shown, what is not too, and nothing else."""

from __future__ import annotations

import contextlib
import random
from hashlib import sha256
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh_ledger import commitment, history, merkle, retention
from hypermesh_ledger.errors import HeightNotKept
from hypermesh_ledger.merkle import Proof
from hypermesh_ledger.pb.tendermint.crypto import proof_pb2
from hypermesh_ledger.state import Writes
from hypermesh_ledger.store import Store


def apply(store: Store, writes: Writes) -> bytes:
    height = store.head.height + 1
    prepared = store.prepare(height, height * 1000, writes)
    store.commit(prepared)
    store.advance(prepared)
    return store.head.app_hash


def root_of(ops: proof_pb2.ProofOps, value: bytes) -> bytes:
    """CometBFT's ValueOp.Run, one operation after the other. Raises ValueError."""
    for op in ops.ops:
        inner = proof_pb2.ValueOp.FromString(op.data)
        hashed = sha256(b"\0" + bytes([len(inner.key)]) + inner.key + b"\x20" + sha256(value).digest()).digest()
        if (op.type, op.key, inner.proof.leaf_hash) != ("simple:v", inner.key, hashed):
            raise ValueError("leaf")
        value = merkle.climb(hashed, inner.proof.total, inner.proof.index, inner.proof.aunts)
    return value


def prove(store: Store, key: bytes, height: int) -> Proof:
    with store.past(height) as past:
        return past.prove(key)


def beside(key: bytes) -> bytes:
    """Another key of the same bucket."""
    return next(other for n in range(1 << 20) if commitment.bucket_of(other := b"x%d" % n) == commitment.bucket_of(key))


def test_every_height_is_proven_against_its_own_app_hash(tmp_path: Path) -> None:
    chance = random.Random(5)
    store, neighbour = Store(tmp_path), beside(b"k/7")
    universe = [b"k/%d" % n for n in range(30)] + [neighbour]
    held: dict[int, dict[bytes, bytes]] = {0: {}}
    app_hashes: dict[int, bytes] = {}
    for height in range(1, 20):
        writes: Writes = {key: chance.choice([None, chance.randbytes(5)]) for key in chance.sample(universe, 9)}
        if height % 5 == 0:
            writes = {}
        app_hashes[height] = apply(store, writes)
        after = held[height - 1] | writes
        held[height] = {key: value for key, value in after.items() if value is not None}
    for height in range(1, 20):
        for key in universe:
            proof = prove(store, key, height)
            assert proof.value == held[height].get(key, b"")
            assert root_of(merkle.proof_ops(proof), proof.value or proof.listing) == app_hashes[height]
            assert (sha256(proof.value).digest() in proof.listing) is False
            assert (key in proof.listing) is False
            with store.past(height) as past:
                assert past.get(key) == held[height].get(key)
    store.close()


def test_a_listing_names_all_of_its_bucket(tmp_path: Path) -> None:
    store, other = Store(tmp_path), beside(b"k/7")
    apply(store, {b"k/7": b"1", other: b"2"})
    asked = commitment.LISTING + commitment.bucket_of(b"k/7")
    listing = prove(store, asked, 1).listing
    assert all(
        bytes([len(key)]) + key + sha256(value).digest() in listing for key, value in ((b"k/7", b"1"), (other, b"2"))
    )
    assert prove(store, b"k/7", 1).listing == b""
    store.close()


def test_the_window_is_younger_than_what_cometbft_forgets() -> None:
    assert history.WINDOW <= retention.BLOCKS


def test_only_kept_heights_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WINDOW", 5)
    store = Store(tmp_path)
    for _ in range(9):
        apply(store, {b"a": b"1"})
    apply(store, {b"a": b"2"})
    with store.past(5) as past:
        assert past.get(b"a") == b"1"
    for height in (0, 4, 11, -1):
        with pytest.raises(HeightNotKept, match="keeps 5 to 10"), store.past(height):
            pass
    store.close()
    again = Store(tmp_path)
    assert prove(again, b"a", 7).value == b"1"
    again.close()


def test_what_an_older_program_committed_ends_the_history(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (b"1", b"2", b"3"):
        apply(store, {b"a": value})
    store.close()
    environment = lmdb.open(str(tmp_path), max_dbs=5)
    with environment.begin(write=True) as transaction:
        transaction.delete((3).to_bytes(8, "big"), db=environment.open_db(b"history", transaction))
    environment.close()
    again = Store(tmp_path)
    with pytest.raises(HeightNotKept, match="keeps 3 to 3"):
        prove(again, b"a", 2)
    again.close()


def test_a_past_is_right_while_blocks_are_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    apply(store, {b"a": b"1"})
    wanted = apply(store, {b"a": b"2", b"b": b"1"})
    prepared = store.prepare(3, 3_000, {b"a": b"3", b"b": None})
    store.commit(prepared)  # the database is ahead of the tree
    proof = prove(store, b"a", 2)
    assert (proof.value, root_of(merkle.proof_ops(proof), proof.value)) == (b"2", wanted)
    copied = store.past(2)
    store.advance(prepared)  # the tree moves on before the copy is read
    with copied as past:
        proof = past.prove(b"b")
    assert (proof.value, root_of(merkle.proof_ops(proof), proof.value)) == (b"1", wanted)
    store.close()


@given(st.integers(1, 70), st.data())
def test_climbing_undoes_aunts(count: int, data: st.DataObject) -> None:
    leaves = [sha256(bytes([n])).digest() for n in range(count)]
    index = data.draw(st.integers(0, count - 1))
    aunts = merkle.aunts(leaves, index)
    root = commitment.tree_root(leaves)
    assert merkle.climb(leaves[index], count, index, aunts) == root
    for other in {0, count - 1, count, index + 1, index - 1} - {index}:
        with contextlib.suppress(ValueError):
            assert merkle.climb(leaves[index], count, other, aunts) != root
    for wrong in (aunts[:-1], [*aunts, root]) if aunts else ([root],):
        with pytest.raises(ValueError, match="aunts"):
            merkle.climb(leaves[index], count, index, wrong)
