"""Elements of the map `endpoints` as netlink messages, and back. Pure, and quick: one pack call an element."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from hypermesh_agent.proxy.mappings import Key, Target
from hypermesh_agent.proxy.netlink import (
    ACK,
    CREATE,
    DUMP,
    REQUEST,
    Message,
    attributes,
    each_attribute,
    message,
    nest,
    text,
)
from hypermesh_agent.proxy.nftables import DELSETELEM, GETSETELEM, HEADER, MAP, NEWSETELEM, TABLE, Body

# NFTA_LIST_ELEM { KEY { VALUE }, DATA { VALUE }, TIMEOUT }: constant headers, so one pack call an element.
_ELEMENT: Final = struct.Struct("=HHHHHH16s4s2s2xHHHH16s2s2xHH8s")
_KEY_ONLY: Final = struct.Struct("=HHHHHH16s4s2s2x")
_N: Final = 0x8000
_ELEMENTS_PER_MESSAGE: Final = 700  # a nested attribute holds at most 64 KiB


def pack_element(key: Key, target: Target, now_ms: int) -> bytes:
    """One map element; its lifetime is what is left of the lease, at least a millisecond (0 would mean for ever)."""
    left = max(1, target.expires_ms - now_ms)
    return _ELEMENT.pack(
        *(_ELEMENT.size, 1 | _N, 32, 1 | _N, 28, 1),
        *(key.address, bytes((key.protocol, 0, 0, 0)), key.port.to_bytes(2, "big")),
        *(28, 2 | _N, 24, 1, target.address, target.port.to_bytes(2, "big")),
        *(12, 4, left.to_bytes(8, "big")),
    )


def pack_key(key: Key) -> bytes:
    """One element by its key alone, to delete or to ask for."""
    protocol = bytes((key.protocol, 0, 0, 0))
    return _KEY_ONLY.pack(_KEY_ONLY.size, 1 | _N, 32, 1 | _N, 28, 1, key.address, protocol, key.port.to_bytes(2, "big"))


def add_elements(elements: Mapping[Key, Target], now_ms: int) -> Iterator[Body]:
    """Messages that add map elements."""
    return _element_messages(NEWSETELEM, CREATE, (pack_element(key, to, now_ms) for key, to in elements.items()))


def delete_elements(keys: Iterable[Key]) -> Iterator[Body]:
    """Messages that delete map elements; one that is not there fails the whole transaction (ENOENT)."""
    return _element_messages(DELSETELEM, 0, map(pack_key, keys))


def _element_messages(kind: int, flags: int, packed: Iterator[bytes]) -> Iterator[Body]:
    while chunk := list(islice(packed, _ELEMENTS_PER_MESSAGE)):
        yield kind, flags, HEADER + text(1, TABLE) + text(2, MAP) + nest(3, *chunk)


def ask_elements(keys: Iterable[Key] | None = None) -> bytes:
    """Request for all elements (a dump), or for the named ones (acknowledged; ENOENT when one is missing)."""
    body = HEADER + text(1, TABLE) + text(2, MAP)
    if keys is None:
        return message(GETSETELEM, REQUEST | DUMP, 1, body)
    return message(GETSETELEM, REQUEST | ACK, 1, body + nest(3, *map(pack_key, keys)))


def read_elements(messages: Iterable[Message], asked_ms: int, answered_ms: int) -> dict[Key, Target]:
    """Elements out of the kernel's answer; the end of each from what was left of its time between the two moments."""
    doubt = max(0, answered_ms - asked_ms)
    found: dict[Key, Target] = {}
    for item in messages:
        if item.type != NEWSETELEM:
            continue
        for _, element in each_attribute(attributes(item.body, 4).get(3, b"")):
            parts = attributes(element)
            if 1 not in parts or 2 not in parts:
                continue
            key, data = attributes(parts[1])[1], attributes(parts[2])[1]
            left = int.from_bytes(parts.get(5) or parts.get(4) or b"", "big")
            name = Key(key[:16], key[16], int.from_bytes(key[20:22], "big"))
            found[name] = Target(data[:16], int.from_bytes(data[16:18], "big"), asked_ms + left, doubt)
    return found
