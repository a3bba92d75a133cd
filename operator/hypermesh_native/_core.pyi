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
        """used: (bucket, its 64 bytes of leaves) of every bucket that holds a key."""

    def copy(self) -> Tree:
        """The same state, unmoved by what is applied to this one: microseconds; what changes is copied then."""

    @property
    def app_hash(self) -> bytes:
        """32 bytes."""

    def aunts(self, index: int, parts: int = ...) -> list[bytes]:
        """Siblings of one of 2^n subtrees (of a leaf, when none are named) and of all above it, its own first.

        n hashes (17). Raises IndexError.
        """

    def update(self, leaves: dict[bytes, bytes]) -> Update:
        """What changes when these buckets' leaves (64 bytes each) do; nothing changes before `apply`."""

    def apply(self, update: Update) -> None:
        """Make an update of this tree's current state true."""

class Update:
    """The next state of a Tree: changed leaves by bucket (to store), changed nodes, and the app hash."""

    @property
    def leaves(self) -> dict[bytes, bytes]: ...
    @property
    def app_hash(self) -> bytes: ...

class Changes:
    """A block's writes (None: deleted) by bucket, values hashed."""

    def __init__(self, writes: dict[bytes, bytes | None]) -> None: ...
    @property
    def buckets(self) -> list[bytes]:
        """Those that the writes touch, in order."""

    def settle(self, held: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], dict[bytes, bytes | None]]:
        """New leaves by bucket, and new value hashes by bucket + key (None: deleted), of the buckets that change.

        held: (bucket + key, value hash) of all that those buckets held before.
        """

def bucket_leaves(bucket: bytes, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """64 bytes: both store leaves of a bucket. entries: (key, value hash) in the order of the keys."""

def leaf(key: bytes, hashed: bytes) -> bytes:
    """`simple:v` leaf of a key, shorter than 128 bytes so that its length is one byte, and the hash of its value."""

def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 tree hash of leaf hashes."""

def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """One signature, here and now; gives up the interpreter meanwhile."""
