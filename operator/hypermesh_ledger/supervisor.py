"""Runs CometBFT and the application as two processes that live and die together.

When the application dies, CometBFT may wait for its socket for ever while its RPC still answers; so whichever of the
two ends, the other is killed, and both start again: application first, CometBFT when the application listens. Health is
the height that the application reports on a pipe, never an RPC's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

EX_CONFIG: Final = 78
"""Exit status of the application for what a restart can't mend (sysexits.h)."""
LISTEN_S: Final = 900.0
"""Longest time until the application listens: it waits for TrustChain, and says so in its log and its readiness."""
STALL_S: Final = 30.0
"""Longest time without a new block (an idle ledger makes one every few seconds) before both are started again. Of a
ledger with peers: only while one of them is ahead. Else the whole chain stands, as with two of four gone, and no
restart helps."""
STOP_S: Final = 5.0
TOGETHER_S: Final = 0.2
"""When the application dies CometBFT ends too, and may be noticed first; the application's end tells more."""
BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
LEAST_FREE_BYTES: Final = 32 << 20
"""With less space than this the two processes can't be expected to work."""
SETTLED_S: Final = 30.0
"""After running this long, the next failure counts as the first."""

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None)


class Ended(Exception):
    """One of the two processes ended or stalled."""


class Misconfigured(Exception):
    """The application will not start with this configuration; it has said why."""


@dataclass(frozen=True, slots=True)
class Commands:
    """How the two processes are started; the application gets the heartbeat's descriptor appended."""

    application: Sequence[str]
    cometbft: Sequence[str]


class Supervisor:
    """Keeps one ledger running in one directory."""

    def __init__(self, home: Path, commands: Commands) -> None:
        self._home = home
        self._commands = commands
        self._height = 0
        self.running: list[asyncio.subprocess.Process] = []
        """Application and CometBFT, as far as started."""

    async def run(self) -> None:
        """For ever, until cancelled (then both are stopped). Raises Misconfigured."""
        with sole(self._home):
            await self._run_again_and_again()

    async def _run_again_and_again(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._run_once()
            except Ended as reason:
                failures = 1 if loop.time() - started > SETTLED_S else failures + 1
                pause = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
                _log.warning("ledger interrupted: %s; starting both again in %s s", reason, pause)
                self._mind_the_volume()
                await asyncio.sleep(pause)

    def _mind_the_volume(self) -> None:
        """Name the commonest reason why nothing can be written."""
        free = shutil.disk_usage(self._home).free
        if free < LEAST_FREE_BYTES:
            _log.critical(
                "the volume of %s is full (%d MB left): free space on it or enlarge it; the ledger goes on by itself",
                self._home,
                free >> 20,
            )

    async def _run_once(self) -> None:
        self.running = []
        self._height = 0
        reading, writing = os.pipe()
        try:
            try:
                application = await self._start([*self._commands.application, str(writing)], (writing,))
            finally:
                os.close(writing)
            heartbeat = await _reader(reading)
            await self._until_listening(application, heartbeat)
            cometbft = await self._start(self._commands.cometbft, ())
            watched = [
                asyncio.create_task(_ends("application", application)),
                asyncio.create_task(_ends("CometBFT", cometbft)),
                asyncio.create_task(self._stalls(heartbeat)),
            ]
            try:
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait(watched[:2], timeout=TOGETHER_S)
                for task in watched:
                    if task.done():
                        task.result()
            finally:
                for task in watched:
                    task.cancel()
        except Ended:
            await self._kill()
            raise
        except BaseException:
            await self._stop()
            raise

    async def _start(self, command: Sequence[str], descriptors: Sequence[int]) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self._home, pass_fds=descriptors, preexec_fn=_die_with_parent
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise Misconfigured(f"Can't start {command[0]}: {error}. Check --cometbft and --home.") from error
        except OSError as error:
            raise Ended(f"can't start {command[0]}: {error}") from error
        self.running.append(process)
        return process

    async def _until_listening(self, application: asyncio.subprocess.Process, heartbeat: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(LISTEN_S):
                first = await heartbeat.readline()
        except TimeoutError:
            raise Ended(f"the application did not listen within {LISTEN_S:.0f} s") from None
        if not first:
            await _ends("application", application)

    async def _stalls(self, heartbeat: asyncio.StreamReader) -> None:
        """Returns never; raises Ended when no block comes."""
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    line = await heartbeat.readline()
                if not line:
                    await asyncio.sleep(STALL_S)  # the application is ending; its exit tells more
                else:
                    height, _, peers = line.partition(b" ")
                    if int(height) > self._height or (peers and int(peers) <= int(height)):
                        self._height, moved = int(height), loop.time()
            if loop.time() - moved > STALL_S:
                raise Ended(f"no block after height {self._height} for {STALL_S:.0f} s")

    async def _kill(self) -> None:
        for process in self.running:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        for process in self.running:
            await process.wait()
        _reap_orphans()

    async def _stop(self) -> None:
        """CometBFT first, so that it never waits for an application that is gone."""
        for process in reversed(self.running):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_S):
                        await process.wait()
        await self._kill()


@contextlib.contextmanager
def sole(home: Path) -> Iterator[None]:
    """Hold the directory alone. Raises Misconfigured when another supervisor has it."""
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Misconfigured(f"Another ledger runs in {home}. Stop it, or give --home another one.") from error
        yield
    finally:
        os.close(descriptor)


async def _ends(name: str, process: asyncio.subprocess.Process) -> None:
    status = await process.wait()
    if status == EX_CONFIG:
        raise Misconfigured(f"the {name} refuses its configuration; its last log line says why")
    how = f"status {status}" if status >= 0 else signal.Signals(-status).name
    raise Ended(f"{name} ended ({how})")


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


def _reap_orphans() -> None:
    """As a container's first process it inherits what the application left behind; own children are all gone here."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _die_with_parent() -> None:
    """In the child: be killed when the supervisor is, so that nothing runs unsupervised."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
