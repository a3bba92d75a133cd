"""The agent's side of populate.py: starts that process at the first request and ends it after a while of quiet."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hypermesh_agent.enforcement.grants import EnforcementFailed

_SCRIPT: Final = Path(__file__).with_name("populate.py")
_AT_ONCE: Final = 4
_IDLE_S: Final = 10.0


class _Worker:
    """One such process, and who waits for its answers. `alive` until its output ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.alive = True
        self.waiting: dict[str, asyncio.Future[int]] = {}
        self.reader = asyncio.create_task(self._read(), name="populator")

    @property
    def usable(self) -> bool:
        return self.alive and self.process.returncode is None

    async def ask(self, path: Path, size: int, join: Iterable[Path]) -> int:
        """The child's wait status. Raises BrokenPipeError or ConnectionResetError when the process ends before."""
        if self.process.stdin is None or not self.alive:
            raise BrokenPipeError
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting[str(path)] = done
        request = {"path": str(path), "size": size, "join": [str(file) for file in join]}
        try:
            try:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
            except RuntimeError as error:  # uvloop's word for a pipe whose other end has gone
                raise BrokenPipeError(str(error)) from error
            await self.process.stdin.drain()
            return await done
        finally:
            self.waiting.pop(str(path), None)

    def rest(self) -> None:
        """No more requests: it ends when the last child has."""
        if self.process.stdin is not None:
            with suppress(RuntimeError):
                self.process.stdin.close()

    async def _read(self) -> None:
        if self.process.stdout is None:
            return
        async for line in self.process.stdout:
            answer = json.loads(line)
            waiting = self.waiting.get(answer["path"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer["status"])
        self.alive = False
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(BrokenPipeError())
        await self.process.wait()


class Populator:
    """`populate` from any number of tasks of one event loop, no two for one path; `close` at the end."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._idle: asyncio.TimerHandle | None = None

    async def populate(self, path: Path, size: int, join: Iterable[Path] = ()) -> None:
        """Makes `path` with `size` bytes of fresh pages, charged to the groups whose files are in `join`.

        Raises EnforcementFailed: OutOfMemory, PoolFull, or PopulateFailed; the file may then be there, incomplete.
        """
        async with self._slots:
            worker = await self._started()
            try:
                status = await worker.ask(path, size, join)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise EnforcementFailed("PopulateFailed", f"{path}: the populating process ended early") from error
            finally:
                self._rest_later()
        if failure := explain(path, size, status):
            raise failure

    async def close(self) -> None:
        """Ends the process; what is under way is finished first."""
        if self._idle is not None:
            self._idle.cancel()
        if self._worker is not None:
            self._worker.rest()
            self._worker = None
        await asyncio.gather(*self._readers)

    async def _started(self) -> _Worker:
        async with self._starting:
            if self._worker is None or not self._worker.usable:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(_SCRIPT)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                self._worker = _Worker(process)
                self._readers.add(self._worker.reader)
                self._worker.reader.add_done_callback(self._readers.discard)
            return self._worker

    def _rest_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._rest)

    def _rest(self) -> None:
        """Unless it has work: then the end of that asks again."""
        if self._worker is not None and not self._worker.waiting:
            self._worker.rest()
            self._worker = None


def explain(path: Path, size: int, status: int) -> EnforcementFailed | None:
    """What a child's wait status means; None for success."""
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    if code in (-signal.SIGKILL, errno.ENOMEM):
        text = f"{size} bytes of memory could not be had: release Allocations or raise the node's reserved memory"
        return EnforcementFailed("OutOfMemory", text)
    if code < 0:
        return EnforcementFailed("PopulateFailed", f"{path}: the populating child died of signal {-code}")
    return full_or_failed(path, size, OSError(code, os.strerror(code)))


def full_or_failed(path: Path, size: int, error: OSError) -> EnforcementFailed:
    """PoolFull when there is no room, else PopulateFailed with the system's word."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        text = f"{path.parent} has no room for {size} bytes: release Allocations, or free space on its file system"
        return EnforcementFailed("PoolFull", text)
    return EnforcementFailed("PopulateFailed", f"{path}: {error.strerror}")
