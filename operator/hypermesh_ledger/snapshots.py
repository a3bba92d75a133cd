"""State-sync snapshots: the state of one height in 64 chunks, each of which the app hash alone vouches for.

    chunk i = all entries of buckets 1024 i ... 1024 i + 1023, and the 6 aunts of the subtree that these buckets are
    snapshots/<height>/<i>, made in a thread from a past state every N blocks -> peers -> check_chunk -> Store.restore

A chunk that is not the state's is refused by itself, with its sender. The newest KEPT snapshots stay on the disk.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment, merkle
from hypermesh_ledger.commitment import Entries
from hypermesh_ledger.history import Past

FORMAT: Final = 1
CHUNKS: Final = 64
KEPT: Final = 2
RESERVE_BYTES: Final = 256 << 20
"""What a snapshot leaves free on the volume, for blocks."""
BUCKETS_OF_CHUNK: Final = commitment.BUCKETS // CHUNKS


class ChunkRefused(Exception):
    """Not this chunk of the state with this app hash."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that belongs to the state."""

    entries: dict[bytes, bytes]
    leaves: dict[bytes, bytes]
    """Tree leaves by bucket, of those that hold something."""


def first_bucket(index: int) -> bytes:
    """Of a chunk."""
    return (index * BUCKETS_OF_CHUNK).to_bytes(2, "big")


def check_chunk(data: bytes, index: int, app_hash: bytes) -> Chunk:
    """Raises ChunkRefused."""
    try:
        message = ledger_pb2.SnapshotChunk.FromString(data)
    except DecodeError as error:
        raise ChunkRefused(f"chunk {index} is not one") from error
    entries = {entry.key: entry.value for entry in message.entries}
    low = index * BUCKETS_OF_CHUNK
    held: dict[bytes, Entries] = {}
    for key, value in sorted(entries.items()):
        if not 0 < len(key) < 128 or not value:
            raise ChunkRefused(f"chunk {index} has an entry that no state has")
        held.setdefault(commitment.bucket_of(key), []).append((key, commitment.value_hash(value)))
    hashes: list[bytes] = []
    leaves: dict[bytes, bytes] = {}
    for number in range(low, low + BUCKETS_OF_CHUNK):
        bucket = number.to_bytes(2, "big")
        found = held.pop(bucket, [])
        pair = commitment.bucket_leaves(bucket, found)
        hashes += (pair[:32], pair[32:])
        if found:
            leaves[bucket] = pair
    if held or len(entries) != len(message.entries):
        raise ChunkRefused(f"chunk {index} has entries of another chunk, or one of them twice")
    try:
        root = merkle.climb(commitment.tree_root(hashes), CHUNKS, index, message.aunts)
    except ValueError as error:
        raise ChunkRefused(f"chunk {index}: {error}") from error
    if commitment.leaf(commitment.STORE_NAME, commitment.value_hash(root)) != app_hash:
        raise ChunkRefused(f"chunk {index} is not of the state with app hash {app_hash.hex()}")
    return Chunk(entries, leaves)


class Snapshots:
    """Those on this node's disk. `take` in a thread, everything else anywhere."""

    def __init__(self, directory: Path, interval: int) -> None:
        """interval in blocks, 0 for none."""
        self._directory = directory
        self._interval = interval
        shutil.rmtree(self._making, ignore_errors=True)  # of a process that died

    @property
    def _making(self) -> Path:
        return self._directory / "making"

    def due(self, height: int) -> bool:
        """Whether one is to be taken of this height."""
        return bool(self._interval) and height % self._interval == 0

    def take(self, past: Past) -> None:
        """Write the snapshot of a past state, resting as long as working; nothing of it stays when it fails.

        Raises OSError, also when the volume has no room for it, HeightNotKept and lmdb.Error.
        """
        try:
            self._write(past, self._making)
        except BaseException:
            shutil.rmtree(self._making, ignore_errors=True)
            raise

    def _write(self, past: Past, making: Path) -> None:
        making.mkdir(parents=True)
        free, needed = shutil.disk_usage(making).free, past.database_bytes() + RESERVE_BYTES
        if free < needed:
            text = f"{free >> 20} MB of the volume are free, the state and a reserve are {needed >> 20} MB: enlarge it"
            raise OSError(errno.ENOSPC, text, str(self._directory))
        digest = sha256()
        with past:
            for index in range(CHUNKS):
                began = time.perf_counter()
                entries, aunts = past.part(first_bucket(index), BUCKETS_OF_CHUNK, CHUNKS)
                message = ledger_pb2.SnapshotChunk(aunts=aunts)
                for key, value in entries:
                    message.entries.add(key=key, value=value)
                data = message.SerializeToString(deterministic=True)
                digest.update(sha256(data).digest())
                (making / str(index)).write_bytes(data)
                time.sleep(time.perf_counter() - began)
        (making / "hash").write_bytes(digest.digest())
        shutil.rmtree(self._directory / str(past.height), ignore_errors=True)
        making.rename(self._directory / str(past.height))
        for height in self.heights()[:-KEPT]:
            shutil.rmtree(self._directory / str(height), ignore_errors=True)

    def heights(self) -> list[int]:
        """Of complete ones, the oldest first."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if re.fullmatch("[0-9]+", path.name))

    def hash_of(self, height: int) -> bytes:
        """Equal only for equal chunks. Raises OSError."""
        return (self._directory / str(height) / "hash").read_bytes()

    def chunk(self, height: int, index: int) -> bytes:
        """Raises OSError when it has gone."""
        return (self._directory / str(height) / str(index)).read_bytes()
