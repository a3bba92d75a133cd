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


class Populator:
    """`populate` from any number of tasks of one event loop; `close` at the end."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._idle: asyncio.TimerHandle | None = None

    async def populate(self, path: Path, size: int, join: Iterable[Path] = ()) -> None:
        """Makes `path` with `size` bytes of fresh pages, charged to the groups whose files are in `join`.

        Raises EnforcementFailed: OutOfMemory, PoolFull, or PopulateFailed; the file may then be there, incomplete.
        """
        async with self._slots:
            if self._idle is not None:
                self._idle.cancel()
            process = await self._started()
            done = asyncio.get_running_loop().create_future()
            self._waiting[str(path)] = done
            request = {"path": str(path), "size": size, "join": [str(file) for file in join]}
            try:
                if process.stdin is None:
                    raise BrokenPipeError
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                status = await done
            except (BrokenPipeError, ConnectionResetError) as error:
                raise EnforcementFailed("PopulateFailed", f"{path}: the populating process ended early") from error
            finally:
                self._waiting.pop(str(path), None)
                if not self._waiting:
                    self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._rest)
        if failure := explain(path, size, status):
            raise failure

    async def close(self) -> None:
        """Ends the process; what is under way fails."""
        if self._idle is not None:
            self._idle.cancel()
        self._rest()
        if self._reader is not None:
            await self._reader

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_SCRIPT)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self._reader = asyncio.create_task(self._read(self._process), name="populator")
        return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            answer = json.loads(line)
            waiting = self._waiting.get(answer["path"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer["status"])
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BrokenPipeError())
        await process.wait()

    def _rest(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(RuntimeError):
                self._process.stdin.close()
        self._process = None


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
