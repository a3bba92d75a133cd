"""nf_tables over netlink: names, numbers, transactions. Pure; rules are in ruleset.py, map elements in elements.py.

Numbers: linux/netfilter/nf_tables.h. A transaction is one datagram between two batch marks; the kernel applies all
of it or nothing, and other packets and programs see only before and after.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hypermesh_agent.proxy.netlink import ACK, REQUEST, Message, attributes, message

FAMILY: Final = 10  # NFPROTO_IPV6
TABLE: Final = "hypermesh"
MAP: Final = "endpoints"
MAX_BATCH: Final = 10_000
"""Elements in one transaction: more hold the kernel's commit mutex longer than other programs should wait."""

_SUBSYSTEM: Final = 10 << 8
NEWTABLE, DELTABLE, NEWCHAIN, GETCHAIN, NEWRULE, GETRULE = (_SUBSYSTEM | n for n in (0, 2, 3, 4, 6, 7))
NEWSET, GETSET, NEWSETELEM, GETSETELEM, DELSETELEM, GETGEN = (_SUBSYSTEM | n for n in (9, 10, 12, 13, 14, 16))
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_BATCH_HEADER: Final = struct.pack(">BBH", 0, 0, 10)

HEADER: Final = struct.pack("=BBH", FAMILY, 0, 0)
"""nfgenmsg, in front of every body."""

Body = tuple[int, int, bytes]
"""Type, flags, body of one message."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes of one transaction; the kernel's answer to message number `last` closes it."""

    data: bytes
    last: int


def batch(bodies: Iterable[Body]) -> Batch:
    """One transaction of (type, flags, body); the last message asks for the acknowledgement."""
    items = list(bodies)
    if not items:
        raise ValueError("a transaction needs at least one message")
    last = len(items)
    parts = [message(_BATCH_BEGIN, REQUEST, 0, _BATCH_HEADER)]
    for sequence, (kind, flags, body) in enumerate(items, 1):
        parts.append(message(kind, flags | REQUEST | (ACK if sequence == last else 0), sequence, body))
    parts.append(message(_BATCH_END, REQUEST, last + 1, _BATCH_HEADER))
    return Batch(b"".join(parts), last)


def ask_generation() -> bytes:
    """Request for the number that every change of the ruleset raises."""
    return message(GETGEN, REQUEST | ACK, 1, HEADER)


def read_generation(messages: Iterable[Message]) -> int:
    """0 when the kernel did not say."""
    for item in messages:
        return int.from_bytes(attributes(item.body, 4).get(1, b""), "big")
    return 0
