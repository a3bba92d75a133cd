"""Which 24-bit node parts of addresses are taken in this cluster, and by which key.

Two nodes whose keys hash to the same 24 bits would share a /88, so the later one gets the next counter. That
decision must outlive this process, hence the registry. It rests beside the root keys in the Secret
`hypermesh-trustchain-root`, not in a ConfigMap of its own: it has the same one reader and writer, whoever
can change it can make two nodes collide, and it must be kept, lost or restored together with the root.

Layout of one record: key id (32) | counter (u32) | expiry of the newest certificate (u64, Unix seconds), all
big-endian. A Secret holds 1 MiB: about 17,000 nodes. Records end `FORGET_S` after their last certificate did.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypermesh import addressing

_RECORD = struct.Struct(">32sIQ")
FORGET_S = 90 * 86400
MAX_NODES = 17_000


class RegistryDamaged(Exception):
    """The stored registry can't be read."""


class RegistryFull(Exception):
    """No more node fits the registry."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """One enrolled node key."""

    counter: int
    expires: int


@dataclass(frozen=True, slots=True)
class KnownNodes:
    """Key id (32 bytes) → KnownNode."""

    nodes: Mapping[bytes, KnownNode]

    @classmethod
    def decode(cls, data: bytes) -> KnownNodes:
        """Inverse of `encode`. Raises RegistryDamaged."""
        if len(data) % _RECORD.size:
            raise RegistryDamaged(
                f"the registry of nodes has {len(data)} bytes, no multiple of {_RECORD.size}; "
                "restore Secret hypermesh-trustchain-root from a backup"
            )
        return cls({key: KnownNode(counter, expires) for key, counter, expires in _RECORD.iter_unpack(data)})

    def encode(self) -> bytes:
        """Records sorted by key id."""
        return b"".join(_RECORD.pack(key, node.counter, node.expires) for key, node in sorted(self.nodes.items()))

    def enrol(self, key_id: bytes, expires: int, now_s: int) -> tuple[KnownNodes, int]:
        """The registry with this key and the key's counter: its old one, else the first that collides with nobody.

        Records long expired are dropped on the way. Raises RegistryFull.
        """
        kept = {key: node for key, node in self.nodes.items() if node.expires + FORGET_S > now_s or key == key_id}
        if key_id in kept:
            node = replace(kept[key_id], expires=expires)
        else:
            if len(kept) >= MAX_NODES:
                raise RegistryFull(f"{MAX_NODES} nodes are enrolled; one cluster holds no more")
            taken = {addressing.node_bits(key, node.counter) for key, node in kept.items()}
            counter = 0
            while addressing.node_bits(key_id, counter) in taken:
                counter += 1
            node = KnownNode(counter, expires)
        return KnownNodes({**kept, key_id: node}), node.counter
