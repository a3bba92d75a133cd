"""Snapshots: each chunk is checked alone, only the whole of them becomes a state, and nothing half-done survives."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment, merkle, snapshots
from hypermesh_ledger.abci.apply_snapshot_chunk import apply_snapshot_chunk
from hypermesh_ledger.abci.list_snapshots import list_snapshots
from hypermesh_ledger.abci.load_snapshot_chunk import load_snapshot_chunk
from hypermesh_ledger.abci.offer_snapshot import offer_snapshot
from hypermesh_ledger.core import Core
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.snapshots import CHUNKS, ChunkRefused, Snapshots, check_chunk
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier

OFFERED, APPLIED = abci.ResponseOfferSnapshot, abci.ResponseApplySnapshotChunk


def fill(store: Store, heights: int, keys: int) -> None:
    chance = random.Random(heights)
    for height in range(1, heights + 1):
        writes = {b"k/%d" % chance.randrange(keys): chance.choice([None, chance.randbytes(9)]) for _ in range(keys)}
        prepared = store.prepare(height, height * 1000, writes)
        store.commit(prepared)
        store.advance(prepared)


def app_hash_of(store: Store, height: int) -> bytes:
    with store.past(height) as past:
        proof = past.prove(b"k/1")
    root = proof.value or proof.listing
    for step in proof.steps:
        root = merkle.climb(commitment.leaf(step.key, commitment.value_hash(root)), step.total, step.index, step.aunts)
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Snapshots, bytes]]:
    """A state at height 6 with snapshots of 2 and 3, and the app hash of 3."""
    directory = tmp_path_factory.mktemp("source")
    store, taken = Store(directory / "state"), Snapshots(directory / "snapshots", 1)
    fill(store, 6, 600)
    for height in (1, 2, 3):
        taken.take(store.past(height))
    yield store, taken, app_hash_of(store, 3)
    store.close()


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[Core]:
    verifier = Verifier()
    store = Store(tmp_path / "state")
    yield Core(store, Verdicts(verifier), Pool(), Metrics(CollectorRegistry()))
    await verifier.close()


def offer(height: int, app_hash: bytes, **terms: int) -> abci.RequestOfferSnapshot:
    described = {"height": height, "format": snapshots.FORMAT, "chunks": CHUNKS, **terms}
    return abci.RequestOfferSnapshot(snapshot=abci.Snapshot(**described), app_hash=app_hash)  # type: ignore[arg-type]


def test_only_the_newest_are_kept(source: tuple[Store, Snapshots, bytes]) -> None:
    assert source[1].heights() == [2, 3]
    assert source[1].hash_of(2) != source[1].hash_of(3)
    assert [Snapshots(Path(), 5).due(height) for height in (4, 5, 6, 10)] == [False, True, True, True]
    assert not Snapshots(Path(), 0).due(0)
    assert source[1].settled(4) == []
    assert source[1].settled(5) == [2]
    assert source[1].settled(6) == [2, 3]


def test_one_that_is_missing_is_made_soon_and_none_is_made_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "state")
    fill(store, 140, 3)
    taken = Snapshots(tmp_path / "snapshots", 30)
    assert [height for height in range(1, 40) if taken.due(height)] == [*range(30, 40)]
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "RESERVE_BYTES", 1 << 60)
        with pytest.raises(OSError, match="enlarge it"):
            taken.take(store.past(37))
    monkeypatch.setattr(taken, "_rest_until", 0.0)
    assert [height for height in range(38, 140) if taken.due(height)] == [60, 90, 120, 137, 138, 139]
    monkeypatch.setattr(snapshots, "REST", 10_000)
    taken.take(store.past(137))
    assert not taken.due(150)
    monkeypatch.setattr(taken, "_rest_until", 0.0)
    assert [height for height in range(138, 170) if taken.due(height)] == [150, 168, 169]
    store.close()


async def test_a_large_state_has_more_chunks(tmp_path: Path, joining: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [snapshots.chunks_for(size << 20) for size in (0, 256, 257, 1_000, 1 << 30)] == [64, 64, 128, 256, 4_096]
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 30)
    store, taken = Store(tmp_path / "large"), Snapshots(tmp_path / "snapshots", 1)
    fill(store, 6, 600)
    taken.take(store.past(2))
    giving = Core(store, joining.verdicts, Pool(), Metrics(CollectorRegistry()), taken)
    (listed,) = (await list_snapshots(giving, abci.RequestListSnapshots())).snapshots
    assert listed.chunks > CHUNKS
    app_hash = app_hash_of(store, 2)
    await offer_snapshot(joining, abci.RequestOfferSnapshot(snapshot=listed, app_hash=app_hash))
    for index in range(listed.chunks):
        chunk = abci.RequestApplySnapshotChunk(index=index, chunk=taken.chunk(2, index))
        assert (await apply_snapshot_chunk(joining, chunk)).result == APPLIED.ACCEPT
    assert (joining.store.head.height, joining.store.head.app_hash) == (2, app_hash)
    joining.store.close()
    store.close()


def test_a_chunk_that_no_peer_takes_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, taken = Store(tmp_path / "state"), Snapshots(tmp_path / "snapshots", 1)
    fill(store, 3, 600)
    monkeypatch.setattr(snapshots, "LARGEST_CHUNK", 100)
    with pytest.raises(OSError, match="too large"):
        taken.take(store.past(2))
    assert taken.heights() == []
    with pytest.raises(ChunkRefused, match="more than any honest peer sends"):
        check_chunk(b"\0" * 101, 0, CHUNKS, b"")
    store.close()


async def test_a_joining_node_gets_the_same_state(source: tuple[Store, Snapshots, bytes], joining: Core) -> None:
    store, taken, app_hash = source
    giving = Core(store, joining.verdicts, Pool(), Metrics(CollectorRegistry()), taken)
    listed = (await list_snapshots(giving, abci.RequestListSnapshots())).snapshots
    assert [(each.height, each.chunks) for each in listed] == [(2, CHUNKS), (3, CHUNKS)]
    answer = await offer_snapshot(joining, abci.RequestOfferSnapshot(snapshot=listed[1], app_hash=app_hash))
    assert answer.result == OFFERED.ACCEPT
    for index in random.Random(1).sample(range(CHUNKS), CHUNKS):
        assert joining.store.head.height == 0
        asked = abci.RequestLoadSnapshotChunk(height=3, format=snapshots.FORMAT, chunk=index)
        chunk = (await load_snapshot_chunk(giving, asked)).chunk
        forged = abci.RequestApplySnapshotChunk(index=(index + 1) % CHUNKS, chunk=chunk, sender="peer")
        refused = await apply_snapshot_chunk(joining, forged)
        assert (refused.result, list(refused.reject_senders)) == (APPLIED.RETRY, ["peer"])
        applied = await apply_snapshot_chunk(joining, abci.RequestApplySnapshotChunk(index=index, chunk=chunk))
        assert applied.result == APPLIED.ACCEPT
    assert (joining.store.head.height, joining.store.head.app_hash) == (3, app_hash)
    with store.past(3) as past:
        for number in range(600):
            assert joining.store.snapshot.get(b"k/%d" % number) == past.get(b"k/%d" % number)
    assert (await offer_snapshot(joining, offer(3, app_hash))).result == OFFERED.ABORT
    joining.store.close()


async def test_what_is_not_ours_is_not_taken(source: tuple[Store, Snapshots, bytes], joining: Core) -> None:
    _, taken, app_hash = source
    assert (await offer_snapshot(joining, offer(3, app_hash, format=9))).result == OFFERED.REJECT_FORMAT
    assert (await offer_snapshot(joining, offer(3, app_hash, chunks=1))).result == OFFERED.REJECT
    unasked = abci.RequestApplySnapshotChunk(index=0, chunk=taken.chunk(3, 0))
    assert (await apply_snapshot_chunk(joining, unasked)).result == APPLIED.ABORT
    giving = Core(joining.store, joining.verdicts, Pool(), Metrics(CollectorRegistry()), taken)
    for wrong in ({"height": 9}, {"chunk": CHUNKS}, {"format": 9}):
        asked = {"height": 3, "format": snapshots.FORMAT, "chunk": 0, **wrong}
        assert (await load_snapshot_chunk(giving, abci.RequestLoadSnapshotChunk(**asked))).chunk == b""
    joining.store.close()


async def test_half_a_restore_leaves_nothing(
    source: tuple[Store, Snapshots, bytes], joining: Core, tmp_path: Path
) -> None:
    _, taken, app_hash = source
    await offer_snapshot(joining, offer(2, app_hash))
    await offer_snapshot(joining, offer(3, app_hash))
    for index in range(CHUNKS // 2):
        await apply_snapshot_chunk(joining, abci.RequestApplySnapshotChunk(index=index, chunk=taken.chunk(3, index)))
    assert joining.store.snapshot.get(b"k/1") is None
    joining.store.close()
    again, fresh = Store(tmp_path / "state"), Store(tmp_path / "fresh")
    assert again.prepare(1, 1, {b"a": b"1"}).head.app_hash == fresh.prepare(1, 1, {b"a": b"1"}).head.app_hash
    again.close()
    fresh.close()


@settings(deadline=None, max_examples=150)
@given(index=st.integers(0, CHUNKS - 1), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_chunk_is_refused(
    source: tuple[Store, Snapshots, bytes], index: int, at: float, bit: int
) -> None:
    _, taken, app_hash = source
    chunk = bytearray(taken.chunk(3, index))
    check_chunk(bytes(chunk), index, CHUNKS, app_hash)
    chunk[int(at * len(chunk))] ^= 1 << bit
    with pytest.raises(ChunkRefused):
        check_chunk(bytes(chunk), index, CHUNKS, app_hash)


def test_entries_that_no_state_has_are_refused(source: tuple[Store, Snapshots, bytes]) -> None:
    _, taken, app_hash = source
    chunk = ledger_pb2.SnapshotChunk.FromString(taken.chunk(3, 0))
    for key, value in (
        (b"", b"v"),
        (b"k" * 128, b"v"),
        (b"k", b""),
        (b"elsewhere", b"v"),
        (chunk.entries[0].key, b"v"),
    ):
        more = ledger_pb2.SnapshotChunk.FromString(taken.chunk(3, 0))
        more.entries.add(key=key, value=value)
        with pytest.raises(ChunkRefused):
            check_chunk(more.SerializeToString(), 0, CHUNKS, app_hash)


def test_a_full_volume_keeps_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume is the ledger's: what a snapshot leaves behind would be missing for the next block."""
    store, here = Store(tmp_path / "state"), tmp_path / "snapshots"
    fill(store, 3, 600)
    (here / "making").mkdir(parents=True)
    taken = Snapshots(here, 1)
    assert not (here / "making").exists()
    write, written = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            taken.take(store.past(2))
    assert list(here.iterdir()) == []
    assert len(written) == 41
    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "RESERVE_BYTES", 1 << 60)
        with pytest.raises(OSError, match="enlarge it"):
            taken.take(store.past(2))
    assert list(here.iterdir()) == []
    taken.take(store.past(2))
    assert taken.heights() == [2]
    store.close()
