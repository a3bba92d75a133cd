"""The committed state on disk: LMDB, one atomic transaction a block for state, height and app hash together.

    FinalizeBlock -> prepare(writes) -> Prepared (app hash known, nothing changed) -> Commit -> one LMDB transaction

A crash before that transaction leaves the state of the block before; CometBFT then replays the block. A crash after it
leaves the new state, and Info tells CometBFT that the block is done. There is no third case. The same transaction
writes what the block overwrote (see history), so that a state of before can be read and proven.

The tree is not on the disk: it is made of the state's entries at the start, which shows whether they are whole.

Beside the state's entries are those that follow from them (keys.DEVICE): written with them, in no hash. They are made
again at the start when another program, or a restore, has written the state without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from hypermesh.digests import u64
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment, history, keys, mapped, outcomes
from hypermesh_ledger.errors import StoreUnusable
from hypermesh_ledger.state import Writes

MAP_BYTES: Final = 1 << 38
"""Address space for the database (256 GiB); the file takes only what the state needs."""
_HEAD: Final = b"head"
_DERIVED: Final = b"derived"
"""Until which height derived entries were written; 8 bytes."""
_OLD: Final = (b"rows", b"hashes", b"tree")
TRIM_ENTRIES: Final = 1 << 13
"""Read at the start between two looks at how much is mapped."""
READ: Final = 4_096
"""Keys whose values a snapshot remembers, at most: those of node, asset and tickets are asked for by each operation."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A block's effect, ready to commit."""

    head: ledger_pb2.Block
    writes: Writes
    undo: bytes
    """The block's row of history."""
    update: commitment.Update


class Snapshot:
    """A Reader of one committed height, unmoved by later commits. Store closes it at the next."""

    def __init__(
        self, environment: Any, state: Any, head: ledger_pb2.Block, read: dict[bytes, bytes | None] | None = None
    ) -> None:
        """read: what is known of this height already."""
        self._environment = environment
        self._transaction = environment.begin(buffers=False)
        self._state = state
        self._read = read or {}
        self.head = head

    def get(self, key: bytes) -> bytes | None:
        """See state.Reader."""
        if key in self._read:
            return self._read[key]
        value: bytes | None = self._transaction.get(key, db=self._state)
        if len(self._read) >= READ:
            self._read.clear()
        self._read[key] = value
        return value

    def get_of(self, database: Any, key: bytes) -> bytes | None:
        """As `get`, of another database of the same moment."""
        value: bytes | None = self._transaction.get(key, db=database)
        return value

    def known_after(self, writes: Writes) -> dict[bytes, bytes | None]:
        """What is known of the next height, which these writes make of this one. This one is not to be read again."""
        for key in self._read.keys() & writes.keys():
            self._read[key] = writes[key]
        return self._read

    def scan(self, prefix: bytes, after: bytes = b"") -> Generator[tuple[bytes, bytes], None, None]:
        """See state.Reader; after: only keys behind this one."""
        with self._transaction.cursor(self._state) as cursor:
            if not cursor.set_range(max(prefix, after + b"\0" if after else after)):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def copy(self, descriptor: int) -> None:
        """Write the whole database of this height into a file, compacted. Raises StoreUnusable."""
        try:
            self._environment.copyfd(descriptor, compact=True, txn=self._transaction)
        except lmdb.Error as error:
            raise StoreUnusable(f"Can't copy the state: {error}.") from error

    def close(self) -> None:
        """Give the pages back."""
        self._transaction.abort()


@contextlib.contextmanager
def look(directory: Path) -> Iterator[Callable[[], Snapshot]]:
    """Begin to read the newest height, of a store that another process may have open. Raises StoreUnusable."""
    try:
        environment = lmdb.open(str(directory), map_size=MAP_BYTES, max_dbs=5, max_readers=1024, readonly=True)
        meta, state = environment.open_db(b"meta", create=False), environment.open_db(b"state", create=False)
    except (lmdb.Error, OSError) as error:
        raise StoreUnusable(f"Can't read the state in {directory}: {error}.") from error

    def begin() -> Snapshot:
        snapshot = Snapshot(environment, state, ledger_pb2.Block())
        snapshot.head.ParseFromString(snapshot.get_of(meta, _HEAD) or b"")
        return snapshot

    try:
        yield begin
    finally:
        environment.close()


def committed_height(directory: Path) -> int:
    """Of the state in that directory, without opening all of it; 0 when there is none. Raises StoreUnusable."""
    file = directory / "data.mdb"
    if not file.exists() or not file.stat().st_size:
        return 0
    try:
        with look(directory) as begin:
            snapshot = begin()
            try:
                return snapshot.head.height
            finally:
                snapshot.close()
    except StoreUnusable as error:
        if isinstance(error.__cause__, lmdb.NotFoundError):
            return 0  # killed while it was made
        raise


class Store:
    """The state of one chain in one directory. One process opens it; `snapshot` is the newest committed height."""

    def __init__(self, directory: Path) -> None:
        """Raises StoreUnusable."""
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(str(directory), map_size=MAP_BYTES, max_dbs=8, max_readers=1024, subdir=True)
            self._meta = self._environment.open_db(b"meta")
            self._state = self._environment.open_db(b"state")
            self._history = self._environment.open_db(b"history")
            self._outcomes = self._environment.open_db(b"outcomes")
        except (lmdb.Error, OSError) as error:
            raise self._unusable("open", error) from error
        with self._environment.begin() as transaction:
            head = transaction.get(_HEAD, db=self._meta)
        if head is None:
            self._drop(self._state, self._history, self._outcomes)  # of a restore that did not end
        self._root = self._read_tree()
        self.snapshot = self._read(ledger_pb2.Block.FromString(head) if head else ledger_pb2.Block())
        self._drop_broken_history()
        self._derive()
        if self.head.app_hash and self.head.app_hash != self._root.app_hash:
            raise self._damaged("its entries do not give its app hash")
        self._forget_hashes()

    @property
    def head(self) -> ledger_pb2.Block:
        """Height, block time and app hash of the newest commit; height 0 before the first."""
        return self.snapshot.head

    def prepare(self, height: int, time_ms: int, writes: Writes) -> Prepared:
        """Compute what committing would do. Writes that change nothing leave the app hash unchanged."""
        hashed = {key: value for key, value in writes.items() if not key.startswith(keys.DEVICE)}
        update = self._root.update(hashed)
        head = ledger_pb2.Block(height=height, time_ms=time_ms, app_hash=update.app_hash)
        return Prepared(head, writes, update.undo(self.snapshot.get), update)

    def commit(self, prepared: Prepared, outcome_row: bytes = b"") -> None:
        """Make it durable, with the block's row of outcomes unless that is empty.

        Raises StoreUnusable when the disk is full or broken; then nothing has changed.
        """
        try:
            self._environment.reader_check()  # a backup that was killed would keep every page of its height for ever
            with self._environment.begin(write=True) as transaction:
                transaction.put(u64(prepared.head.height), prepared.undo, db=self._history)
                history.prune(transaction, self._history, prepared.head.height)
                if outcome_row:
                    transaction.put(u64(prepared.head.height), outcome_row, db=self._outcomes)
                history.prune(transaction, self._outcomes, prepared.head.height)
                _write(transaction, self._state, prepared.writes)
                transaction.put(_HEAD, prepared.head.SerializeToString(deterministic=True), db=self._meta)
                transaction.put(_DERIVED, u64(prepared.head.height), db=self._meta)
        except (lmdb.Error, OSError) as error:
            raise self._unusable("write", error) from error
        mapped.trim(self._directory / "data.mdb")

    def advance(self, prepared: Prepared) -> None:
        """Let readers see what `commit` made durable."""
        self._root.apply(prepared.update)
        old = self.snapshot
        self.snapshot = Snapshot(self._environment, self._state, prepared.head, old.known_after(prepared.writes))
        old.close()

    def past(self, height: int) -> history.Past:
        """The state at a height, to be entered in any one thread."""
        databases = (self._state, self._history)
        return history.Past(self._environment, databases, self._root.copy(), height, self.head.height)

    def earliest(self) -> int:
        """The lowest height that can be read."""
        with self._environment.begin() as transaction:
            return max(1, history.begins(transaction, self._history, self.head.height))

    def outcomes(self, height: int) -> ledger_pb2.Outcomes | None:
        """What became of a block's transactions; None when it had none, or the row is not kept."""
        return outcomes.at(self._environment, self._outcomes, height)

    def find_outcome(self, tx_hash: bytes) -> tuple[int, ledger_pb2.Outcomes] | None:
        """Height and row of the newest kept block that decided a transaction. In any thread but the event loop's."""
        return outcomes.find(self._environment, self._outcomes, tx_hash)

    def wipe(self) -> None:
        """Empty a state without a height of what a restore has left. Raises StoreUnusable."""
        if self.head.height:
            raise ValueError(f"the state of height {self.head.height} is not to be wiped")
        self._drop(self._state, self._history, self._outcomes)

    def restore(self, entries: Mapping[bytes, bytes]) -> None:
        """Write a part of a snapshot; nobody sees it before `adopt`. Raises StoreUnusable."""
        try:
            with self._environment.begin(write=True) as transaction:
                _write(transaction, self._state, entries)
        except (lmdb.Error, OSError) as error:
            raise self._unusable("write", error) from error

    def adopt(self, head: ledger_pb2.Block) -> None:
        """Make all that was restored the committed state. Raises StoreUnusable when it isn't head's."""
        root = self._read_tree()
        if root.app_hash != head.app_hash:
            raise StoreUnusable(f"The restored state does not have the app hash of height {head.height}: start again.")
        try:
            with self._environment.begin(write=True) as transaction:
                transaction.put(_HEAD, head.SerializeToString(deterministic=True), db=self._meta)
        except (lmdb.Error, OSError) as error:
            raise self._unusable("write", error) from error
        self._root = root
        self._derive(head)
        old, self.snapshot = self.snapshot, self._read(head)
        old.close()

    def _read_tree(self) -> commitment.Tree:
        """Hash the whole state: seconds for a million assets."""
        with self._environment.begin() as transaction, transaction.cursor(self._state) as cursor:
            return commitment.Tree(self._hashed(cursor))

    def _hashed(self, cursor: Any) -> Generator[tuple[bytes, bytes], None, None]:
        """All but the derived entries, which lie together."""
        for first, after in ((b"", keys.DEVICE), (_behind(keys.DEVICE), None)):
            if cursor.set_range(first):
                for number, (key, value) in enumerate(cursor, 1):
                    if after is not None and key >= after:
                        break
                    yield key, value
                    if not number % TRIM_ENTRIES:
                        mapped.trim(self._directory / "data.mdb")

    def _forget_hashes(self) -> None:
        """Drop what older programs kept of the tree on the disk."""
        for name in _OLD:
            with contextlib.suppress(lmdb.Error, OSError):  # not there, or a full volume: the next start tries again
                database = self._environment.open_db(name, create=False)
                with self._environment.begin(write=True) as transaction:
                    transaction.drop(database)

    def _drop(self, *databases: Any) -> None:
        try:
            with self._environment.begin(write=True) as transaction:
                for database in databases:
                    transaction.drop(database, delete=False)
        except (lmdb.Error, OSError) as error:
            raise self._unusable("write", error) from error

    def _drop_broken_history(self) -> None:
        with self._environment.begin() as transaction:
            newest = history.ends(transaction, self._history)
        if newest not in (None, self.head.height):
            self._drop(self._history)

    def _derive(self, head: ledger_pb2.Block | None = None) -> None:
        """Make the derived entries anew, unless they are of this height (the store's head) already."""
        height = u64((head or self.head).height)
        with self._environment.begin() as transaction:
            if transaction.get(_DERIVED, db=self._meta, default=u64(0)) == height:
                return
        try:
            with self._environment.begin(write=True) as transaction:
                with transaction.cursor(self._state) as cursor:
                    while cursor.set_range(keys.DEVICE) and cursor.key().startswith(keys.DEVICE):
                        cursor.delete()
                    named = [_device(value) for _, value in _under(cursor, keys.ASSET)]
                for key in named:
                    transaction.put(key, keys.PRESENT, db=self._state)
                transaction.put(_DERIVED, height, db=self._meta)
        except (lmdb.Error, OSError) as error:
            raise self._unusable("write", error) from error
        self.snapshot.close()
        self.snapshot = self._read(self.head)

    def close(self) -> None:
        """Close the database; snapshots are dead afterwards."""
        self.snapshot.close()
        self._environment.close()

    def _read(self, head: ledger_pb2.Block) -> Snapshot:
        return Snapshot(self._environment, self._state, head)

    def _damaged(self, how: str) -> StoreUnusable:
        text = f"The state in {self._directory} is damaged ({how})."
        return StoreUnusable(
            f"{text} Restore a backup of the whole --home: old blocks are pruned, so they can't be replayed."
        )

    def _unusable(self, deed: str, error: Exception) -> StoreUnusable:
        return StoreUnusable(
            f"Can't {deed} the state in {self._directory}: {error}. "
            "Free space on the volume or enlarge it, and check that this process may write there."
        )


def _under(cursor: Any, prefix: bytes) -> Generator[tuple[bytes, bytes], None, None]:
    if cursor.set_range(prefix):
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value


def _behind(prefix: bytes) -> bytes:
    """The first key after all that begin with a prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _device(asset: bytes) -> bytes:
    registration = ledger_pb2.AssetRecord.FromString(asset).registration
    return keys.device(registration.work_device, registration.asset_id)


def _write(transaction: Any, database: Any, writes: Any) -> None:
    for key, value in writes.items():
        if value is None:
            transaction.delete(key, db=database)
        else:
            transaction.put(key, value, db=database)
