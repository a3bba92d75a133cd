"""The compiled part's types; what the hashes are of is told in hypermesh_ledger.commitment."""

from collections.abc import Iterable, Sequence

class Signatures:
    """FALCON-1024 signatures (padded, round 3), verified in a thread of its own that never takes the interpreter.

    What is accepted is what liboqs accepts. Any thread may call.
    """

    def __init__(self) -> None: ...
    def fileno(self) -> int:
        """Readable when there are answers."""

    def submit(self, ticket: int, checks: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """(public key, signature, message) each; returns at once, with copies of them. Raises RuntimeError when closed.

        A key or signature of a wrong length is not good. Messages are hashed with the signature's nonce, as they are.
        """

    def answers(self) -> list[tuple[int, bytes]]:
        """(ticket, a byte for each check: 1 it is good, 0 it is not) of those done since the last call.

        No bytes for those of one ticket that could not be verified at all, which is a defect of the verifier.
        """

    def close(self) -> None:
        """End the thread, when it has done what was submitted."""

class Tree:
    """The store's tree, complete and in memory (8 MiB)."""

    def __init__(self, used: Iterable[tuple[bytes, bytes]]) -> None:
        """used: (bucket, its row or the leaves alone) of every bucket that holds a key."""

    def copy(self) -> Tree:
        """The same state, unmoved by what is applied to this one: microseconds; what changes is copied then."""

    @property
    def app_hash(self) -> bytes:
        """32 bytes."""

    def aunts(self, index: int, parts: int = ...) -> list[bytes]:
        """Siblings of one of 2^n subtrees (of a leaf, when none are named) and of all above it, its own first.

        n hashes (17). Raises IndexError.
        """

    def update(self, rows: dict[bytes, bytes]) -> Update:
        """What changes when these buckets' rows do, or the leaves alone; nothing changes before `apply`."""

    def apply(self, update: Update) -> None:
        """Make an update of this tree's current state true."""

class Update:
    """The next state of a Tree: changed nodes and the app hash."""

    @property
    def app_hash(self) -> bytes: ...

class Changes:
    """A block's writes (None: deleted) by bucket, values hashed."""

    def __init__(self, writes: dict[bytes, bytes | None]) -> None: ...
    @property
    def buckets(self) -> list[bytes]:
        """Those that the writes touch, in order."""

    def settle(self, held: Sequence[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
        """New rows of the buckets that change, by bucket, and all their written keys, each behind its bucket.

        held: the rows of `buckets` before, one for each; no bytes for one that has none. Raises ValueError.
        """

def bucket_row(bucket: bytes, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Both leaves (64 bytes) and the listing. entries: (key, value hash) in the order of the keys."""

def row_entries(bucket: bytes, row: bytes) -> list[tuple[bytes, bytes]]:
    """What `bucket_row` was made of; nothing of no bytes. Raises ValueError for one that is not its leaf's."""

def leaf(key: bytes, hashed: bytes) -> bytes:
    """`simple:v` leaf of a key, shorter than 128 bytes so that its length is one byte, and the hash of its value."""

def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 tree hash of leaf hashes."""

def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """One signature, here and now; gives up the interpreter meanwhile."""
