"""What befalls a ledger's network: nobody reached, some of it lost, all of it late. Each a context, mended at its end.

Drops are nftables' in the ledger's own namespace, in both directions, and only between ledgers: clients still reach it.
The delay is slow_wire.py between its veth and the bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from .four_ledgers import LIMIT_S, Place, run

WIRE = ("Bwire0", "Bwire1")


@contextlib.contextmanager
def drops(place: Place, peers: Sequence[Place], percent: int = 100) -> Iterator[None]:
    """That share of the packets between a ledger and these others is lost."""
    inside = ("nsenter", f"--net=/proc/{place.holder.pid}/ns/net", "--", "nft")
    chance = "" if percent == 100 else f"numgen random mod 100 < {percent} "
    addresses = ", ".join(peer.address for peer in peers)
    run(*inside, "add table ip6 faults")
    try:
        for hook, end in (("input", "saddr"), ("output", "daddr")):
            run(*inside, f"add chain ip6 faults {hook} {{ type filter hook {hook} priority 0; policy accept; }}")
            run(*inside, f"add rule ip6 faults {hook} ip6 {end} {{ {addresses} }} {chance}counter drop")
        yield
        dropped = run(*inside, "list table ip6 faults")
        assert "counter packets 0 " not in dropped, f"nothing was lost:\n{dropped}"
    finally:
        run(*inside, "delete table ip6 faults")


@contextlib.asynccontextmanager
async def delay(place: Place, milliseconds: int) -> AsyncIterator[None]:
    """Everything to and from a ledger, clients' calls too, comes so much later, each way."""
    script = str(Path(__file__).with_name("slow_wire.py"))
    veth, bridge = f"v{place.number}", "br1"
    wire = await asyncio.create_subprocess_exec(sys.executable, "-P", script, *WIRE, str(milliseconds))
    try:
        async with asyncio.timeout(LIMIT_S):
            while not all(f" {name}: " in run("ip", "-o", "link", "show") for name in WIRE):
                assert wire.returncode is None, "slow_wire.py ended"
                await asyncio.sleep(0.05)
        run("ip", "link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
        run("ip", "link", "set", bridge, "up")
        run("ip", "link", "set", WIRE[0], "master", "br0", "up")
        run("ip", "link", "set", WIRE[1], "master", bridge, "up")
        run("ip", "link", "set", veth, "master", bridge)
        yield
        assert wire.returncode is None, "slow_wire.py ended"
    finally:
        run("ip", "link", "set", veth, "master", "br0")
        wire.terminate()
        await wire.wait()
        with contextlib.suppress(AssertionError):
            run("ip", "link", "delete", bridge)
