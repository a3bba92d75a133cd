"""A wire that takes its time: forwards frames between two TAP devices, each after a delay.

    python slow_wire.py NAME NAME MILLISECONDS

It makes both devices; they go when it ends. (No netem in many kernels; TCP, TLS and p2p encryption see a long cable.)
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME = 65_536
KEPT = 20_000
"""Frames on the way, at most; more are lost."""


def tap(name: str) -> int:
    """A descriptor that reads and writes whole frames."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def forward(one: int, other: int, delay_s: float) -> None:
    """For ever."""
    to, under_way, number = {one: other, other: one}, [], 0
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for source in select.select([one, other], [], [], patience)[0]:
            number += 1
            frame = _tried(os.read, source, FRAME)
            if frame and len(under_way) < KEPT:
                heapq.heappush(under_way, (time.monotonic() + delay_s, number, to[source], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(under_way)
            _tried(os.write, target, frame)


def _tried(call: object, *arguments: object) -> bytes:
    """Nothing, when the device is down or full."""
    try:
        return call(*arguments)  # type: ignore[operator, no-any-return]
    except OSError:
        return b""


if __name__ == "__main__":
    forward(tap(sys.argv[1]), tap(sys.argv[2]), int(sys.argv[3]) / 1000)
