"""Netlink as bytes: messages and attributes packed and taken apart (RFC 3549; linux/netlink.h); one blocking socket.

The packing half is pure, so that what we send is tested without a kernel; `Socket` sends it. Headers are in the
machine's byte order, values in whatever order the protocol on top wants (nf_tables: network order).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

REQUEST: Final = 0x01
ACK: Final = 0x04
DUMP: Final = 0x300
REPLACE: Final = 0x100
CREATE: Final = 0x400
APPEND: Final = 0x800

_DUMP_INTERRUPTED: Final = 0x10
_ERROR: Final = 2
_DONE: Final = 3
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")

_SOL_NETLINK: Final = 270
_EXT_ACK: Final = 11
_CAP_ACK: Final = 10
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_BUFFER_BYTES: Final = 16 << 20
_REPLY_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 30.0


class NetlinkError(OSError):
    """The kernel's refusal of one message; `errno` as usual, the text with the kernel's own explanation if any."""


class Interrupted(Exception):
    """A dump whose table changed while it was read: what came is no consistent state; ask again."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a reply: type, body after the netlink header."""

    type: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Length, type, value, padding to four bytes."""
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + b"\0" * (-size % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A zero-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """32 bits in network order."""
    return attribute(kind, value.to_bytes(4, "big"))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Header and body; the port id is left to the kernel."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Type -> value of a run of attributes; the last of a type wins."""
    return dict(each_attribute(data, start))


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) in order, flags stripped off the type. Stops at a length that does not fit."""
    end = len(data)
    while start + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, start)
        if size < 4 or start + size > end:
            return
        yield kind & _TYPE_MASK, data[start + 4 : start + size]
        start += size + (-size % 4)


class Socket:
    """One netlink socket; blocking, to be used by one thread at a time. Closes with `close` or as a context."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        for option in (_EXT_ACK, _CAP_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.bind((0, 0))

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def transact(self, data: bytes, acknowledged: int) -> None:
        """Sends messages and waits for the answer to sequence number `acknowledged`.

        Raises NetlinkError for the first message the kernel refused (a batch is then wholly undone).
        """
        self._socket.send(data)
        refusal: NetlinkError | None = None
        while True:
            for kind, _, sequence, body in self._replies():
                if kind != _ERROR:
                    continue
                refusal = refusal or _refusal(body)
                if sequence == acknowledged or (refusal and sequence == 0):
                    if refusal:
                        self._drain()
                        raise refusal
                    return

    def dump(self, data: bytes) -> list[Message]:
        """Sends one dump request and returns all its messages. Raises NetlinkError, Interrupted."""
        self._socket.send(data)
        answer: list[Message] = []
        interrupted = False
        while True:
            for kind, flags, _, body in self._replies():
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind == _ERROR and (refusal := _refusal(body)):
                    raise refusal
                if kind == _DONE:
                    if interrupted:
                        raise Interrupted
                    return answer
                answer.append(Message(kind, body))

    def ask(self, data: bytes) -> list[Message]:
        """Sends one request with ACK and returns what came before the acknowledgement. Raises NetlinkError."""
        self._socket.send(data)
        answer: list[Message] = []
        while True:
            for kind, _, _, body in self._replies():
                if kind != _ERROR:
                    answer.append(Message(kind, body))
                elif refusal := _refusal(body):
                    raise refusal
                else:
                    return answer

    def _replies(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_REPLY_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if size < _HEADER.size:
                return
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + size]
            offset += size + (-size % 4)

    def _drain(self) -> None:
        """Throws away the answers that still wait, so that they are not taken for those of the next request."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(_REPLY_BYTES):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(_TIMEOUT_S)


def _refusal(body: bytes) -> NetlinkError | None:
    """The error in an acknowledgement, None when it is a plain one. Layout: nlmsgerr in linux/netlink.h."""
    code: int = -_CODE.unpack_from(body)[0]
    if code == 0:
        return None
    said = attributes(body, 4 + _HEADER.size).get(1, b"").rstrip(b"\0").decode(errors="replace")
    reason = os.strerror(code)
    return NetlinkError(code, f"{reason}: {said}" if said else reason)
