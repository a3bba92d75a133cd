"""State-sync snapshots: the state of one height in chunks, each of which the app hash alone vouches for.

    chunk i of 64 = all entries of buckets 1024 i ... 1024 i + 1023, and the 6 aunts of the subtree that these are
    snapshots/<height>/<i>, made in a thread from a past state every N blocks -> peers -> check_chunk -> Store.restore

Larger states have more chunks, a power of two, since CometBFT carries none above 16 MB. A chunk that is not the state's
is refused by itself, with its sender. The newest KEPT snapshots stay on the disk.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment, merkle
from hypermesh_ledger.history import Past

FORMAT: Final = 1
CHUNKS: Final = 64
"""Of a small state; the fewest."""
MOST_CHUNKS: Final = 4_096
CHUNK_BYTES: Final = 4 << 20
"""What a chunk should have at most, counted in pages of the database."""
LARGEST_CHUNK: Final = 15_000_000
"""CometBFT's peers take no message above 16 MB."""
KEPT: Final = 2
SETTLED_BLOCKS: Final = 3
"""A snapshot is told of when as many blocks follow it: the light client of who restores it needs two of them."""
RETRY_BLOCKS: Final = 100
"""After a failure, when there is no young snapshot."""
REST: Final = 9
"""No snapshot is begun before this many times as long has passed as the last one took."""
RESERVE_BYTES: Final = 256 << 20
"""What a snapshot leaves free on the volume, for blocks."""


class ChunkRefused(Exception):
    """Not this chunk of the state with this app hash."""


def chunks_for(database_bytes: int) -> int:
    """How many chunks a state has: a power of two, so that each is one subtree."""
    chunks = CHUNKS
    while chunks < MOST_CHUNKS and database_bytes > chunks * CHUNK_BYTES:
        chunks *= 2
    return chunks


def possible(chunks: int) -> bool:
    """Whether a snapshot can have as many."""
    return CHUNKS <= chunks <= MOST_CHUNKS and chunks.bit_count() == 1


def first_bucket(index: int, chunks: int) -> bytes:
    """Of a chunk."""
    return (index * (commitment.BUCKETS // chunks)).to_bytes(2, "big")


def check_chunk(data: bytes, index: int, chunks: int, app_hash: bytes) -> dict[bytes, bytes]:
    """The entries of a chunk that belongs to the state. Raises ChunkRefused."""
    if len(data) > LARGEST_CHUNK:
        raise ChunkRefused(f"chunk {index} has {len(data)} bytes, more than any honest peer sends")
    try:
        message = ledger_pb2.SnapshotChunk.FromString(data)
    except DecodeError as error:
        raise ChunkRefused(f"chunk {index} is not one") from error
    entries = {entry.key: entry.value for entry in message.entries}
    buckets = commitment.BUCKETS // chunks
    low = index * buckets
    if any(not 0 < len(key) < 128 or not value for key, value in entries.items()):
        raise ChunkRefused(f"chunk {index} has an entry that no state has")
    held = commitment.leaves_of(entries)
    hashes: list[bytes] = []
    for number in range(low, low + buckets):
        bucket = number.to_bytes(2, "big")
        leaves = held.get(bucket) or commitment.bucket_leaves(bucket, [])
        hashes += (leaves[: commitment.HASH], leaves[commitment.HASH :])
    if len(entries) != len(message.entries) or any(not low <= int.from_bytes(it, "big") < low + buckets for it in held):
        raise ChunkRefused(f"chunk {index} has entries of another chunk, or one of them twice")
    try:
        root = merkle.climb(commitment.tree_root(hashes), chunks, index, message.aunts)
    except ValueError as error:
        raise ChunkRefused(f"chunk {index}: {error}") from error
    if commitment.leaf(commitment.STORE_NAME, commitment.value_hash(root)) != app_hash:
        raise ChunkRefused(f"chunk {index} is not of the state with app hash {app_hash.hex()}")
    return entries


class Snapshots:
    """Those on this node's disk. `take` in a thread, everything else anywhere."""

    def __init__(self, directory: Path, interval: int) -> None:
        """interval in blocks, 0 for none."""
        self._directory = directory
        self._interval = interval
        self._failed = -RETRY_BLOCKS
        self._rest_until = 0.0
        shutil.rmtree(self._making, ignore_errors=True)  # of a process that died
        self._heights = self._found()

    @property
    def _making(self) -> Path:
        return self._directory / "making"

    def due(self, height: int) -> bool:
        """Whether one is to be taken of this height: each interval, and soon when the newest is older than that."""
        if not self._interval or time.monotonic() < self._rest_until:
            return False
        missing = height - (self._heights[-1] if self._heights else 0) > self._interval
        return height % self._interval == 0 or (missing and not 0 <= height - self._failed < RETRY_BLOCKS)

    def take(self, past: Past) -> None:
        """Write the snapshot of a past state, resting as long as working; nothing of it stays when it fails.

        Raises OSError, also when the volume has no room for it, HeightNotKept and lmdb.Error.
        """
        began = time.monotonic()
        try:
            self._write(past, self._making)
        except BaseException:
            self._failed = past.height
            shutil.rmtree(self._making, ignore_errors=True)
            raise
        finally:
            self._heights = self._found()
            self._rest_until = time.monotonic() + REST * (time.monotonic() - began)

    def free_bytes(self) -> int:
        """Of the volume."""
        return shutil.disk_usage(self._directory.parent).free

    def _write(self, past: Past, making: Path) -> None:
        making.mkdir(parents=True)
        size = past.database_bytes()
        free, needed = self.free_bytes(), size + RESERVE_BYTES
        if free < needed:
            text = f"{free >> 20} MB of the volume are free, the state and a reserve are {needed >> 20} MB: enlarge it"
            raise OSError(errno.ENOSPC, text, str(self._directory))
        digest, chunks = sha256(), chunks_for(size)
        with past:
            for index in range(chunks):
                began = time.perf_counter()
                entries, aunts = past.part(first_bucket(index, chunks), commitment.BUCKETS // chunks, chunks)
                message = ledger_pb2.SnapshotChunk(aunts=aunts)
                for key, value in entries:
                    message.entries.add(key=key, value=value)
                data = message.SerializeToString(deterministic=True)
                if len(data) > LARGEST_CHUNK:
                    text = (
                        f"chunk {index} of {chunks} has {len(data)} bytes, which no peer takes: this state is too large"
                    )
                    raise OSError(errno.EFBIG, text, str(self._directory))
                digest.update(sha256(data).digest())
                (making / str(index)).write_bytes(data)
                time.sleep(time.perf_counter() - began)
        (making / "hash").write_bytes(digest.digest())
        shutil.rmtree(self._directory / str(past.height), ignore_errors=True)
        making.rename(self._directory / str(past.height))
        for height in self._found()[:-KEPT]:
            shutil.rmtree(self._directory / str(height), ignore_errors=True)

    def heights(self) -> list[int]:
        """Of complete ones, the oldest first."""
        return self._heights

    def settled(self, head: int) -> list[int]:
        """Those that can be restored when `head` is the newest block."""
        return [height for height in self._heights if height + SETTLED_BLOCKS <= head]

    def _found(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if re.fullmatch("[0-9]+", path.name))

    def chunks_of(self, height: int) -> int:
        """How many there are. Raises OSError."""
        return sum(path.name != "hash" for path in (self._directory / str(height)).iterdir())

    def hash_of(self, height: int) -> bytes:
        """Equal only for equal chunks. Raises OSError."""
        return (self._directory / str(height) / "hash").read_bytes()

    def chunk(self, height: int, index: int) -> bytes:
        """Raises OSError when it has gone."""
        return (self._directory / str(height) / str(index)).read_bytes()
