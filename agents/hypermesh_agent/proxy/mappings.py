"""What the kernel shall translate: mappings as values, and the difference between two sets of them. Pure.

proxy address . protocol . port  ->  node address . port, until the lease ends
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, NamedTuple

TCP: Final = 6
EXPIRY_TOLERANCE_MS: Final = 3_000
"""The kernel counts down in jiffies and from when it took the element: nearer than this is the same moment."""


class Key(NamedTuple):
    """What a packet is looked up by; address 16 bytes, so that ten thousand keys cost no object each."""

    address: bytes
    protocol: int
    port: int

    def __str__(self) -> str:
        return f"[{IPv6Address(self.address)}]:{self.port}/{self.protocol}"


class Target(NamedTuple):
    """Where its destination is changed to, and until when (unix milliseconds)."""

    address: bytes
    port: int
    expires_ms: int
    doubt_ms: int = 0
    """How much later the end may be: the kernel tells only what is left, at some moment of a read that takes time."""

    def same(self, other: Target) -> bool:
        """Equal but for what the kernel's clock cannot hold and a read cannot tell."""
        if (self.address, self.port) != (other.address, other.port):
            return False
        return (
            max(
                self.expires_ms - (other.expires_ms + other.doubt_ms),
                other.expires_ms - (self.expires_ms + self.doubt_ms),
            )
            <= EXPIRY_TOLERANCE_MS
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from the actual mappings to the wanted ones."""

    add: dict[Key, Target]
    remove: frozenset[Key]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def difference(
    wanted: Mapping[Key, Target], actual: Mapping[Key, Target], keys: Iterable[Key] | None = None
) -> Difference:
    """Only over `keys` when given. A wrong target is in both halves: removed and added in one transaction."""
    add: dict[Key, Target] = {}
    remove: set[Key] = set()
    for key in wanted.keys() | actual.keys() if keys is None else keys:
        wish, fact = wanted.get(key), actual.get(key)
        if wish is not None and fact is not None and wish.same(fact):
            continue
        if fact is not None:
            remove.add(key)
        if wish is not None:
            add[key] = wish
    return Difference(add, frozenset(remove))


def live(wanted: Mapping[Key, Target], now_ms: int) -> dict[Key, Target]:
    """Without those whose lease has ended."""
    return {key: target for key, target in wanted.items() if target.expires_ms > now_ms}


def chunks(change: Difference, limit: int) -> Iterator[Difference]:
    """Cuts a difference into parts of at most `limit` keys; a key that is replaced is never cut in two."""
    keys = sorted(change.remove | change.add.keys(), key=lambda key: key not in change.remove)
    for start in range(0, len(keys), limit):
        part = keys[start : start + limit]
        add = {key: change.add[key] for key in part if key in change.add}
        yield Difference(add, frozenset(key for key in part if key in change.remove))
