"""A second network namespace at the end of a veth pair, and programs run in it. Only usable in a private namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

HERE = IPv6Address("fd00:99::1")
THERE = IPv6Address("fd00:99::2")


def run(*command: str, **options: object) -> str:
    """Runs a program to its end and returns what it printed; an error carries what it said."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr or ran.stdout}"
    return ran.stdout


@dataclass
class Wire:
    """`here` is this side's address (the owning node), `there` the consumer's."""

    device: str
    holder: subprocess.Popen[bytes]
    here: IPv6Address = HERE
    there: IPv6Address = THERE

    def consumer(self, *command: str) -> list[str]:
        """The command line that runs `command` in the consumer's namespace."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *command]

    def route(self, prefix: IPv6Network) -> None:
        """What the consumer's own agent would set: the /88 lies behind the owning node."""
        run(*self.consumer("ip", "-6", "route", "replace", str(prefix), "via", str(self.here)))

    def end(self) -> None:
        self.holder.terminate()
        self.holder.wait(10)


@contextlib.contextmanager
def wired() -> Iterator[Wire]:
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    wire = Wire("owner0", holder)
    try:
        while _namespace(holder.pid) == _namespace("self"):
            assert holder.poll() is None
        run("ip", "link", "add", wire.device, "type", "veth", "peer", "name", "user0", "netns", str(holder.pid))
        run("ip", "-6", "address", "add", f"{HERE}/64", "dev", wire.device, "nodad")
        run("ip", "link", "set", wire.device, "up")
        run(*wire.consumer("ip", "link", "set", "lo", "up"))
        run(*wire.consumer("ip", "-6", "address", "add", f"{THERE}/64", "dev", "user0", "nodad"))
        run(*wire.consumer("ip", "link", "set", "user0", "up"))
        yield wire
    finally:
        subprocess.run(["ip", "link", "delete", wire.device], capture_output=True, check=False)
        wire.end()


def _namespace(pid: int | str) -> str:
    return run("readlink", f"/proc/{pid}/ns/net")
