"""A running CometBFT, held still for as long as an image of its files takes; it notices nothing but the clock.

What its files hold then is what a kill -9 at that moment would leave, and a start after one mends that: copies are as
good. Should whoever holds it die, the supervisor starts both processes again after half a minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

STOP_S: Final = 5.0
"""Longest wait until all its threads stand; one may be in the middle of a sync of the disk."""


class NotHeld(Exception):
    """CometBFT was just started or ended: try again."""


def cometbft(home: Path) -> int | None:
    """The process id of the CometBFT that runs in this directory, as the supervisor starts it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                here = Path(os.readlink(entry / "cwd")) == home  # noqa: PTH115 - resolve() would follow more
                if here and (entry / "cmdline").read_bytes().split(b"\0")[1:2] == [b"start"]:
                    return int(entry.name)
    return None


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Within, no file of CometBFT moves. Raises NotHeld, also at the end when it was not so all the time."""
    with _turn(home):
        pid = cometbft(home)
        if pid is None:
            raise NotHeld(f"No CometBFT runs in {home} now, and its ledger does.")
        with _stopped_until_end(home, pid):
            yield


@contextlib.contextmanager
def _turn(home: Path) -> Iterator[None]:
    """One at a time: the first of two that ends would let it go under the other's hands."""
    descriptor = os.open(home / "run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotHeld(f"Another backup holds the CometBFT of {home}.") from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _stopped_until_end(home: Path, pid: int) -> Iterator[None]:
    began = _stat(pid)[19:20]
    try:
        with _gone(home):
            os.kill(pid, signal.SIGSTOP)
        _until_stopped(home, pid)
        yield
        if _stat(pid)[19:20] != began or not _stopped(pid):
            raise NotHeld(f"The CometBFT of {home} was ended meanwhile.")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _gone(home: Path) -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        raise NotHeld(f"The CometBFT of {home} has just ended.") from None
    except PermissionError:
        raise NotHeld(f"The CometBFT of {home} is another user's: run this as the user of the ledger.") from None


def _until_stopped(home: Path, pid: int) -> None:
    deadline = time.monotonic() + STOP_S
    while not _stopped(pid):
        if time.monotonic() > deadline or not _stat(pid):
            raise NotHeld(f"The CometBFT of {home} did not stand still within {STOP_S:.0f} s.")
        time.sleep(0.002)


def _stopped(pid: int) -> bool:
    """Every thread."""
    threads = [_fields(path / "stat") for path in Path(f"/proc/{pid}/task").glob("*")]
    return bool(threads) and all(fields[:1] == ["T"] for fields in threads if fields)


def _stat(pid: int) -> list[str]:
    """Fields from the state on (the 20th is the start time); empty when it has gone."""
    return _fields(Path(f"/proc/{pid}/stat"))


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []
