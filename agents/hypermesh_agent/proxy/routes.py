"""Routes of the proxy network: the node's own /88 is local, each peer's /88 lies behind that peer's node address.

    wanted {prefix: via or None for local}  <->  the kernel's routes that carry our protocol number

All routes of ours carry one protocol number (as `ip -6 route show proto 88` shows them), so that a restart finds and
corrects its own and touches nobody else's. Encoding: rtnetlink(7), linux/rtnetlink.h. `RouteTable` blocks; run it in a
worker thread.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from hypermesh_agent.proxy.netlink import (
    ACK,
    CREATE,
    DUMP,
    REPLACE,
    REQUEST,
    Interrupted,
    Message,
    NetlinkError,
    Socket,
    attribute,
    attributes,
    message,
)

PROTOCOL: Final = 88
"""rtm_protocol of our routes; 5-255 are free for routing daemons (rt_protos)."""

_ROUTE: Final = 0
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_AF_INET6: Final = 10
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_UNICAST, _LOCAL = 1, 2
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC = 1, 4, 5, 6, 7
_METRIC: Final = struct.pack("=I", 512)


@dataclass(frozen=True, slots=True)
class Route:
    """One /88. `via` is a peer's node address; None: this machine itself, answering as `source`."""

    prefix: IPv6Network
    via: IPv6Address | None = None
    source: IPv6Address | None = None


class RouteError(OSError):
    """The kernel refused a route; the message names the prefix, the next hop and the remedy."""


def pack(route: Route) -> bytes:
    """Body of a route message."""
    local = route.via is None
    header = _RTMSG.pack(
        _AF_INET6,
        route.prefix.prefixlen,
        0,
        0,
        _TABLE_LOCAL if local else _TABLE_MAIN,
        PROTOCOL,
        0,
        _LOCAL if local else _UNICAST,
        0,
    )
    parts = [header, attribute(_DST, route.prefix.network_address.packed)]
    if route.via is None:
        parts.append(attribute(_OIF, struct.pack("=I", 1)))
        if route.source is not None:
            parts.append(attribute(_PREFSRC, route.source.packed))
    else:
        parts.append(attribute(_GATEWAY, route.via.packed))
    parts.append(attribute(_PRIORITY, _METRIC))
    return b"".join(parts)


def unpack(answer: Message) -> Route | None:
    """The route in a message; None when it is not one of ours."""
    if answer.type != _NEWROUTE or len(answer.body) < _RTMSG.size:
        return None
    _, length, _, _, _, protocol, _, _, _ = _RTMSG.unpack_from(answer.body)
    parts = attributes(answer.body, _RTMSG.size)
    if protocol != PROTOCOL or _DST not in parts:
        return None
    via, source = parts.get(_GATEWAY), parts.get(_PREFSRC)
    return Route(
        IPv6Network((parts[_DST], length)),
        IPv6Address(via) if via else None,
        IPv6Address(source) if source else None,
    )


def plan(wanted: Mapping[IPv6Network, Route], actual: Mapping[IPv6Network, Route]) -> tuple[list[Route], list[Route]]:
    """(routes to remove, routes to set), in an order that never leaves two routes for one prefix."""
    remove = [route for prefix, route in actual.items() if wanted.get(prefix) != route]
    return remove, [route for prefix, route in wanted.items() if actual.get(prefix) != route]


class RouteTable:
    """The kernel's routes that are ours, in the network namespace that it was made in."""

    def __init__(self) -> None:
        self._socket = Socket(_ROUTE)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> dict[IPv6Network, Route]:
        """Our routes by prefix."""
        request = message(_GETROUTE, REQUEST | DUMP, 1, _RTMSG.pack(_AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0))
        with self._lock:
            for _ in range(10):
                try:
                    found = [route for answer in self._socket.dump(request) if (route := unpack(answer))]
                except Interrupted:
                    continue
                return {route.prefix: route for route in found}
        raise RouteError(errno.EAGAIN, "the routing table changes faster than it can be read")

    def add(self, route: Route) -> None:
        """Sets one route, replacing ours of the same prefix. Raises RouteError."""
        try:
            self._transact(_NEWROUTE, CREATE | REPLACE, route)
        except NetlinkError as error:
            where = f"via {route.via}" if route.via else "on this machine"
            remedy = (
                f"node address {route.via} must be reachable without a router in between (or tunnel the node network)"
                if route.via
                else "check that the loopback interface is up and the node's address is assigned"
            )
            raise RouteError(error.errno, f"route {route.prefix} {where}: {error.strerror}; {remedy}") from error

    def remove(self, route: Route) -> None:
        """Removes one route, there or not."""
        try:
            self._transact(_DELROUTE, 0, route)
        except NetlinkError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT):
                raise RouteError(error.errno, f"route {route.prefix} can't be removed: {error.strerror}") from error

    def _transact(self, kind: int, flags: int, route: Route) -> None:
        with self._lock:
            self._socket.transact(message(kind, REQUEST | ACK | flags, 1, pack(route)), 1)
