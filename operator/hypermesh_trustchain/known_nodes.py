"""Which 24-bit node parts of addresses are taken in this cluster, and by which key.

Two nodes whose keys hash to the same 24 bits would share a /88, so the later one gets the next counter. That
decision must outlive this process, hence the registry. It rests beside the root keys in the Secret
`hypermesh-trustchain-root`, not in a ConfigMap of its own: it has the same one reader and writer, whoever
can change it can make two nodes collide, and it must be kept, lost or restored together with the root.

Layout of one record: key id (32) | counter (u32) | expiry of the newest certificate (u64, Unix seconds) | subject (the
first 8 bytes of its digest), all big-endian. A Secret holds 1 MiB: about 14,000 nodes. Records end `FORGET_S` after
their last certificate did. The subject bounds how many keys one node's token can enrol, so that a stolen one can't
fill the registry.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypermesh import addressing
from hypermesh.digests import digest
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

SUBJECT_BYTES = 8
_RECORD = struct.Struct(f">32sIQ{SUBJECT_BYTES}s")
FORGET_S = 90 * 86400
MAX_NODES = 14_000
MAX_KEYS = 4
"""Of one subject, with an unexpired certificate: leaves room for a node that loses its disk now and then."""


class RegistryDamaged(Exception):
    """The stored registry can't be read."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """One enrolled node key; `subject` as `subject_id` makes it."""

    counter: int
    expires: int
    subject: bytes


def subject_id(subject: str) -> bytes:
    """8 bytes that stand for a node's name."""
    return digest("subject", subject.encode())[:SUBJECT_BYTES]


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
        return cls({key: KnownNode(*rest) for key, *rest in _RECORD.iter_unpack(data)})

    def encode(self) -> bytes:
        """Records sorted by key id."""
        return b"".join(
            _RECORD.pack(key, node.counter, node.expires, node.subject) for key, node in sorted(self.nodes.items())
        )

    def enrol(self, key_id: bytes, subject: str, expires: int, now_s: int) -> tuple[KnownNodes, int]:
        """The registry with this key and the key's counter: its old one, else the first that collides with nobody.

        Records long expired are dropped on the way. Raises EnrolmentRefused (TooManyKeys, RegistryFull).
        """
        kept = {key: node for key, node in self.nodes.items() if node.expires + FORGET_S > now_s or key == key_id}
        owner = subject_id(subject)
        others = [
            node.expires
            for key, node in kept.items()
            if node.subject == owner and node.expires > now_s and key != key_id
        ]
        if len(others) >= MAX_KEYS:
            raise EnrolmentRefused(
                Reason.TOO_MANY_KEYS,
                f"{subject} has {len(others)} keys with certificates, the most that one node may have: let it use one "
                f"of them, or wait until the first certificate ends, at {_utc(min(others))}",
            )
        if key_id in kept:
            node = replace(kept[key_id], expires=expires, subject=owner)
        else:
            if len(kept) >= MAX_NODES:
                raise EnrolmentRefused(
                    Reason.REGISTRY_FULL, f"{MAX_NODES} node keys are enrolled; one cluster holds no more"
                )
            taken = {addressing.node_bits(key, node.counter) for key, node in kept.items()}
            counter = 0
            while addressing.node_bits(key_id, counter) in taken:
                counter += 1
            node = KnownNode(counter, expires, owner)
        return KnownNodes({**kept, key_id: node}), node.counter


def _utc(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
