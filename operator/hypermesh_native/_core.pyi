"""The compiled part's types; what the hashes are of is told in hypermesh_ledger.commitment."""

from collections.abc import Callable, Iterable, Mapping, Sequence

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
    """The store's tree, complete and in memory (8 MiB), and what each bucket lists (125 bytes an asset)."""

    def __init__(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """entries: (key, value) of all that is hashed, in the order of the keys. Raises ValueError."""

    def copy(self) -> Tree:
        """The same state, unmoved by what is applied to this one: microseconds; what changes is copied then."""

    @property
    def app_hash(self) -> bytes:
        """32 bytes."""

    def aunts(self, index: int, parts: int = ...) -> list[bytes]:
        """Siblings of one of 2^n subtrees (of a leaf, when none are named) and of all above it, its own first.

        n hashes (17). Raises IndexError.
        """

    def entries(self, bucket: bytes) -> list[tuple[bytes, bytes]]:
        """(key, value hash) of all that a bucket holds, in the order of the keys. Raises ValueError."""

    def names(self, first: int, after: int) -> list[bytes]:
        """All keys in the buckets from `first` to before `after`. Raises IndexError."""

    def update(self, writes: Mapping[bytes, bytes | None]) -> Update:
        """What a block's writes (None: deleted) change; nothing changes before `apply`. Raises ValueError."""

    def apply(self, update: Update) -> None:
        """Make an update of this tree's current state true."""

    def set_back(self, leaves: dict[bytes, bytes]) -> None:
        """Give buckets these leaves (64 bytes), and what is above them theirs. What they list stays."""

class Update:
    """The next state of a Tree."""

    @property
    def app_hash(self) -> bytes: ...
    def undo(self, value: Callable[[bytes], bytes | None]) -> bytes:
        """What it overwrites, an `Undo` message: values of all written keys of the buckets that change, and the leaves
        that these had. value reads the state; what it raises is raised."""

def bucket_leaves(bucket: bytes, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Both leaves (64 bytes). entries: (key, value hash) in the order of the keys."""

def leaf(key: bytes, hashed: bytes) -> bytes:
    """`simple:v` leaf of a key, shorter than 128 bytes so that its length is one byte, and the hash of its value."""

def read_envelope(
    raw: bytes,
) -> tuple[bytes, tuple[bytes, bytes, bytes, bytes] | None, bytes, bytes, bytes, bytes, bytes] | None:
    """An `Envelope` of one encoding, whose fields have the form that they must have: see hypermesh.operations.Read.

    None for any other, and for what is too strange to be sure.
    """

def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 tree hash of leaf hashes."""

def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """One signature, here and now; gives up the interpreter meanwhile."""
