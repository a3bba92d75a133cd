"""A program: throws random bytes at a TLS gRPC port in six ways. Arguments: address, server name, path of the root."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ROUNDS = 60


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1), right or not."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def poke(address: str, name: str, context: ssl.SSLContext | None, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection = socket.create_connection((address, 7443), 5)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=name)
        with connection:
            connection.settimeout(0.2)
            connection.sendall(data)
            connection.recv(1000)


def main(address: str, name: str, root: str) -> None:
    random.seed(7)
    context = ssl.create_default_context(cafile=root)
    context.set_alpn_protocols(["h2"])
    opening = PREFACE + frame(4, 0, 0, b"")
    for _ in range(ROUNDS):
        noise = random.randbytes(random.randrange(1, 3000))
        any_frame = frame(random.randrange(12), random.randrange(256), random.randrange(4), noise)
        poke(address, name, None, noise)
        poke(address, name, None, b"\x16\x03\x01" + noise)
        poke(address, name, context, noise)
        poke(address, name, context, PREFACE + noise)
        poke(address, name, context, opening + any_frame)
        poke(address, name, context, opening + frame(1, 5, 1, noise) + frame(0, 1, 1, noise))
    print("done")


main(*sys.argv[1:])
