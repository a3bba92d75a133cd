"""PID 1 of a machine: starts its daemons when what they need is there, starts them again when they die, reaps all.

A daemon that dies at once is tried again ever more slowly (0.2 s doubling to 5 s), as systemd or a kubelet would;
orphans of the whole pid namespace (containerd's shims) end up here and are reaped.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
STEADY_SECONDS = 30.0
NEED_POLL = 0.05
IDLE_POLL = 60.0


@dataclass(frozen=True)
class Service:
    """One daemon: its command, environment, log file, and what must be there before it starts.

    `needs_paths` are files or sockets, `needs_address` a (host, TCP port) that accepts; empty when nothing.
    """

    name: str
    command: tuple[str, ...]
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    needs_paths: tuple[str, ...] = ()
    needs_address: tuple[str, int] | None = None

    def startable(self) -> bool:
        """Whether what it needs is there."""
        if not all(Path(path).exists() for path in self.needs_paths):
            return False
        return self.needs_address is None or accepts(*self.needs_address)


def accepts(host: str, port: int) -> bool:
    """Whether a TCP connection opens within a quarter of a second."""
    try:
        socket.create_connection((host, port), timeout=0.25).close()
    except OSError:
        return False
    return True


class Slot:
    """A daemon's place: its log stays open, so that it outlives any change of root."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pid = 0
        self.due = 0.0
        self.delay = FIRST_DELAY
        self._started = 0.0
        self._log = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def start(self) -> None:
        """Runs the daemon in a session of its own with default signal handling."""
        command, environment = list(self.service.command), {**os.environ, **self.service.environment}
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                null = os.open(os.devnull, os.O_RDONLY)
                for source, target in ((null, 0), (self._log, 1), (self._log, 2)):
                    os.dup2(source, target)
                os.execvpe(command[0], command, environment)
            except OSError as error:
                os.write(2, f"cannot run {command[0]}: {error}\n".encode())
            finally:
                os._exit(127)
        self.pid, self._started = pid, time.monotonic()

    def ended(self) -> None:
        """Plans the next start."""
        lived = time.monotonic() - self._started
        self.delay = FIRST_DELAY if lived > STEADY_SECONDS else min(self.delay * 2, LONGEST_DELAY)
        self.pid, self.due = 0, time.monotonic() + self.delay


def supervise(slots: list[Slot]) -> None:
    """Runs until SIGTERM or SIGINT; then returns, and as PID 1 takes the whole namespace along."""
    watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    while True:
        _reap({slot.pid: slot for slot in slots if slot.pid})
        waiting = [slot for slot in slots if not slot.pid]
        for slot in waiting:
            if time.monotonic() >= slot.due and slot.service.startable():
                slot.start()
        pause = NEED_POLL if any(not slot.pid for slot in slots) else IDLE_POLL
        received = signal.sigtimedwait(watched, pause)
        if received is not None and received.si_signo != signal.SIGCHLD:
            return


def _reap(running: dict[int, Slot]) -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in running:
            running[pid].ended()
