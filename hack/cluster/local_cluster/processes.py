"""Which process is meant: a pid with its start time, so that a number used again by a stranger is never touched."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02


def start_time(stat: str) -> int:
    """Field 22 of /proc/PID/stat (proc(5)): clock ticks from boot to the process's start.

    The second field is the command in parentheses and may itself hold spaces and parentheses.
    """
    return int(stat.rpartition(")")[2].split()[19])


@dataclass(frozen=True)
class Process:
    """One process of this boot, recognisable after its pid was reused."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now; raises ProcessLookupError when none has."""
        try:
            return cls(pid, start_time(Path(f"/proc/{pid}/stat").read_text()))
        except FileNotFoundError as error:
            raise ProcessLookupError(f"no process {pid}") from error

    def alive(self) -> bool:
        """Whether this very process runs (a zombie does not)."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return start_time(stat) == self.start and stat.rpartition(")")[2].split()[0] not in {"Z", "X"}

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal to this very process; False when it is gone. A pidfd closes the gap after the check."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Waits until all are gone, at most `seconds`; answers those that remain."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while remaining := [process for process in remaining if process.alive()]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return remaining
