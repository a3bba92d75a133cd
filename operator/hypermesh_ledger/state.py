"""How execution sees the state: read-only below, a pile of forks above.

    Reader (a committed snapshot) <- Fork (one block) <- Fork (one transaction, merged only when it succeeds)

Keys and values are bytes; a value is never empty (an empty value could not be told from absence in a proof).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Protocol

Writes = dict[bytes, bytes | None]
"""New values by key; None deletes."""


class Reader(Protocol):
    """What a state can be asked."""

    def get(self, key: bytes) -> bytes | None:
        """The value, None when the key is not there."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries whose key starts with prefix, in the order of their keys."""


class Fork:
    """Writes that nobody below sees until they are merged."""

    def __init__(self, base: Reader) -> None:
        self._base = base
        self.writes: Writes = {}

    def get(self, key: bytes) -> bytes | None:
        """The newest value of this fork or below."""
        if key in self.writes:
            return self.writes[key]
        return self._base.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Base and fork together, in order of keys; writes made while it runs may be missed."""
        own = sorted(key for key in self.writes if key.startswith(prefix))
        below = ((key, 1) for key, _ in self._base.scan(prefix) if key not in self.writes)
        for key, _ in heapq.merge(((key, 0) for key in own), below):
            value = self.get(key)
            if value is not None:
                yield key, value

    def put(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key or a value that the state's proofs could not carry."""
        if not key or len(key) > 127 or key.startswith((b"x:", b"\0B")) or not value:
            raise ValueError(f"state key {key!r} or its value of {len(value)} bytes can't be proven")
        self.writes[key] = value

    def delete(self, key: bytes) -> None:
        """Nothing happens when the key is not there."""
        self.writes[key] = None

    def merge(self, child: Fork) -> None:
        """Take over the writes of a fork made on this one."""
        self.writes.update(child.writes)


class Memory:
    """A state in memory: what unit tests and replays execute against."""

    def __init__(self, entries: Mapping[bytes, bytes] | None = None) -> None:
        self.entries: dict[bytes, bytes] = dict(entries or {})

    def get(self, key: bytes) -> bytes | None:
        """See Reader."""
        return self.entries.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See Reader."""
        for key in sorted(key for key in self.entries if key.startswith(prefix)):
            yield key, self.entries[key]

    def write(self, writes: Writes) -> None:
        """Apply a block's writes."""
        for key, value in writes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
