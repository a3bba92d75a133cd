"""The rules of the nftables table `ip6 hypermesh` as netlink messages, and back. Pure: bytes in, bytes out.

    map endpoints   ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service, elements time out with the lease
    prerouting      destination in the node's /88, TCP: DNAT by the map        (packets from elsewhere)
    output          the same                                                   (packets from this node)
    input           destination still in the /88, so not mapped: TCP reset, else ICMPv6 port unreachable

The reject chain keeps unmapped addresses away from the host's own listeners: the local route of the /88 would
otherwise hand them any packet. Expressions are those that `nft --debug=netlink` shows for the same rules, so
`nft list table ip6 hypermesh` prints them as written above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Final

from hypermesh_agent.proxy.netlink import (
    APPEND,
    CREATE,
    DUMP,
    REQUEST,
    Message,
    attribute,
    attributes,
    each_attribute,
    message,
    nest,
    text,
    u32,
)
from hypermesh_agent.proxy.nftables import (
    DELTABLE,
    FAMILY,
    GETCHAIN,
    GETRULE,
    GETSET,
    HEADER,
    MAP,
    NEWCHAIN,
    NEWRULE,
    NEWSET,
    NEWTABLE,
    TABLE,
    Body,
)

# Registers: 1 and 2 are 16 bytes each, 13 is the second 4-byte word of register 2.
_REG1: Final = 1
_REG2: Final = 2
_REG2_WORD1: Final = 13
_IPV6_DADDR_OFFSET: Final = 24
_NAT_PRIORITY: Final = -105  # before kube-proxy's and everybody's dstnat (-100): first NAT decides
_INPUT_PRIORITY: Final = -5
_KEY_TYPE: Final = 8 << 12 | 12 << 6 | 13  # ipv6_addr . inet_proto . inet_service, six bits each
_DATA_TYPE: Final = 8 << 6 | 13
_KEY_BYTES: Final = 24
_DATA_BYTES: Final = 20
_SET_FLAGS: Final = 0x08 | 0x10  # map, timeout
_MARK_TYPE: Final = 0x48
"""None that nft has a meaning for: 0 is a comment, 1 is ebtables' policy."""
_TCP_RESET: Final = u32(1, 1)
_PORT_UNREACHABLE: Final = u32(1, 0) + attribute(2, b"\x04")


@dataclass(frozen=True, slots=True)
class Chain:
    """One base chain and its rules, each rule a run of expressions."""

    name: str
    type: str
    hook: int
    priority: int
    rules: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """What of a table can be read back to see whether it is ours and whole; see `expected` and `read_structure`."""

    chains: frozenset[tuple[str, str, int, int]]
    rules: tuple[tuple[str, bytes, bytes], ...]
    map: tuple[int, int, int, int, int]


def chains(own: IPv6Network) -> tuple[Chain, ...]:
    """The three chains for a node's /88."""
    translate = (_to(own) + _TCP + _DNAT_BY_MAP,)
    reject = (_to(own) + _TCP + _expression("reject", _TCP_RESET), _to(own) + _expression("reject", _PORT_UNREACHABLE))
    return (
        Chain("prerouting", "nat", 0, _NAT_PRIORITY, translate),
        Chain("output", "nat", 3, _NAT_PRIORITY, translate),
        Chain("input", "filter", 1, _INPUT_PRIORITY, reject),
    )


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *parts))


def _payload(base: int, offset: int, size: int, register: int) -> bytes:
    return _expression("payload", u32(1, register), u32(2, base), u32(3, offset), u32(4, size))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", u32(1, _REG1), u32(2, 0), nest(3, attribute(1, value)))


def _protocol(register: int) -> bytes:
    return _expression("meta", u32(2, 16), u32(1, register))


def _to(own: IPv6Network) -> bytes:
    """ip6 daddr <own>: a prefix of whole bytes compares without a mask."""
    if own.prefixlen % 8:
        raise ValueError(f"{own}: the prefix of a node ends on a whole byte")
    size = own.prefixlen // 8
    return _payload(1, _IPV6_DADDR_OFFSET, size, _REG1) + _equals(own.network_address.packed[:size])


_TCP: Final = _protocol(_REG1) + _equals(b"\x06")
_DNAT_BY_MAP: Final = (
    _payload(1, _IPV6_DADDR_OFFSET, 16, _REG1)
    + _protocol(_REG2)
    + _payload(2, 2, 2, _REG2_WORD1)
    + _expression("lookup", u32(2, _REG1), u32(3, _REG1), text(1, MAP))
    + _expression("nat", u32(1, 1), u32(2, FAMILY), u32(3, _REG1), u32(5, _REG2))
)


def rebuild(own: IPv6Network) -> list[Body]:
    """Messages that replace the whole table by an empty right one, whatever was there before.

    Existing connections live on: their translation is in the connection tracking table, not here.
    """
    table = HEADER + text(1, TABLE)
    messages = [(NEWTABLE, CREATE, table), (DELTABLE, 0, table), (NEWTABLE, CREATE, table)]
    messages.append((NEWSET, CREATE, _map_body()))
    for chain in chains(own):
        messages.append((NEWCHAIN, CREATE, _chain_body(chain)))
        for rule in chain.rules:
            body = HEADER + text(1, TABLE) + text(2, chain.name) + nest(4, rule) + attribute(7, _mark(rule))
            messages.append((NEWRULE, CREATE | APPEND, body))
    return messages


def drop() -> list[Body]:
    """Messages that remove the table, there or not."""
    table = HEADER + text(1, TABLE)
    return [(NEWTABLE, CREATE, table), (DELTABLE, 0, table)]


def _map_body() -> bytes:
    return b"".join(
        (
            HEADER,
            text(1, TABLE),
            text(2, MAP),
            u32(3, _SET_FLAGS),
            u32(4, _KEY_TYPE),
            u32(5, _KEY_BYTES),
            u32(6, _DATA_TYPE),
            u32(7, _DATA_BYTES),
            u32(10, 1),
        )
    )


def _chain_body(chain: Chain) -> bytes:
    hook = nest(4, u32(1, chain.hook), u32(2, chain.priority & 0xFFFFFFFF))
    return b"".join((HEADER, text(1, TABLE), text(3, chain.name), hook, u32(5, 1), text(7, chain.type)))


def _mark(rule: bytes) -> bytes:
    """User data of a rule, returned verbatim by the kernel: which rule of ours this is.

    In the form that nft reads there (libnftnl/udata.h): type, length, value. A digest alone may look like a comment.
    """
    digest = hashlib.sha256(rule).digest()
    return bytes([_MARK_TYPE, len(digest)]) + digest


def ask_structure() -> tuple[bytes, bytes, bytes]:
    """Dump requests for chains, rules and sets."""
    table = HEADER + text(1, TABLE)
    return (
        message(GETCHAIN, REQUEST | DUMP, 1, HEADER),
        message(GETRULE, REQUEST | DUMP, 1, table),
        message(GETSET, REQUEST | DUMP, 1, table),
    )


def expected(own: IPv6Network) -> Structure:
    """The structure that `rebuild` makes."""
    wanted = chains(own)
    return Structure(
        frozenset((chain.name, chain.type, chain.hook, chain.priority) for chain in wanted),
        tuple(sorted((chain.name, _mark(rule), _canonical(rule)) for chain in wanted for rule in chain.rules)),
        (_KEY_TYPE, _KEY_BYTES, _DATA_TYPE, _DATA_BYTES, _SET_FLAGS),
    )


def read_structure(chain_dump: list[Message], rule_dump: list[Message], set_dump: list[Message]) -> Structure:
    """The structure that the kernel holds; rules in a chain keep their order by name and mark."""
    found_chains = set()
    for item in chain_dump:
        parts = attributes(item.body, 4)
        if _string(parts, 1) != TABLE or item.body[0] != FAMILY:
            continue
        hook = attributes(parts.get(4, b""))
        priority = int.from_bytes(hook.get(2, b""), "big", signed=True)
        found_chains.add((_string(parts, 3), _string(parts, 7), int.from_bytes(hook.get(1, b""), "big"), priority))
    rules = []
    for item in rule_dump:
        parts = attributes(item.body, 4)
        if _string(parts, 1) == TABLE:
            rules.append((_string(parts, 2), parts.get(7, b""), _canonical(parts.get(4, b""))))
    shape = (0, 0, 0, 0, 0)
    for item in set_dump:
        parts = attributes(item.body, 4)
        if (_string(parts, 1), _string(parts, 2)) == (TABLE, MAP):
            values = [int.from_bytes(parts.get(kind, b""), "big") for kind in (4, 5, 6, 7, 3)]
            shape = (values[0], values[1], values[2], values[3], values[4])
    return Structure(frozenset(found_chains), tuple(sorted(rules)), shape)


def _string(parts: Mapping[int, bytes], kind: int) -> str:
    return parts.get(kind, b"").rstrip(b"\0").decode(errors="replace")


# What the kernel adds on its own to an expression when it shows it: flags, and upper ends that equal the lower ones.
_ADDED: Final = {"nat": {4, 6, 7}, "lookup": {4, 5}}


def _canonical(rule: bytes) -> bytes:
    """Expressions in one form: attributes sorted, with their lengths, without those that the kernel adds."""
    out = []
    for _, expression in each_attribute(rule):
        parts = attributes(expression)
        name = _string(parts, 1)
        added = _ADDED.get(name, frozenset[int]())
        fields = sorted((kind, value) for kind, value in each_attribute(parts.get(2, b"")) if kind not in added)
        out.append(name.encode() + b"".join(attribute(kind, value) for kind, value in fields))
    return b"|".join(out)
