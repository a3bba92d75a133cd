"""Filled memory as the agent sees it: slabs, each a sealed memory file that only the holder process keeps open.

    grow → a memory file, passed to the holder → fill, some blocks at a time → whole → answer, open
    cut  → no more writes (F_SEAL_GROW), length 0: the pages are free when it returns, whatever the holder is doing

The agent reaches a slab through the holder's /proc/<pid>/fd, so its own death or the holder's frees everything.
Slabs are cut off at the end, for what is proven are the first ones. Interface: memfd_create(2), fcntl(2), proc(5).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import proofs_pb2

AT_ONCE: Final = 16
"""Blocks that are made before the holder listens again; `make bench-proofs` prints what one takes."""
_REPLY_LIMIT: Final = 4 << 20
_ANSWER_S: Final = 120.0
_NAME: Final = "hypermesh-free-memory"


class HolderFailed(RuntimeError):
    """The holder process ended, or could not do what was asked; all slabs are gone."""


class SlabGone(Exception):
    """A slab was cut off meanwhile; what was asked of it has no answer."""


@dataclass(slots=True, eq=False)
class Slab:
    """own: the agent's descriptor until the holder has taken the file; file: its number there. done: blocks filled."""

    own: int | None
    file: int | None = None
    done: int = 0


@dataclass(frozen=True, slots=True)
class Filling:
    """Whose memory, and how: everything that its bytes depend on. owner: memory_owner of chain and node."""

    owner: bytes
    params: proofs_pb2.MemoryParameters

    @property
    def blocks(self) -> int:
        """Of a slab."""
        return int(self.params.slab_bytes // (self.params.block_kib * 1024))


class Slabs:
    """One holder process and what it holds. Use as a context; every call may raise HolderFailed."""

    def __init__(self, filling: Filling, group: Callable[[], Path]) -> None:
        """group: a file that puts its writer into the control group that pays."""
        self.filling = filling
        self._group = group
        self._held: dict[bytes, list[Slab]] = {}
        self._drop: list[int] = []
        self._line = asyncio.Lock()
        self._cutting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None

    async def __aenter__(self) -> Slabs:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hypermesh_agent.memory.holder", str(theirs.fileno()), str(self._group())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                limit=_REPLY_LIMIT,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._channel is not None:
            self._channel.close()
        for slab in [slab for slabs in self._held.values() for slab in slabs]:
            _close(slab)
        self._held.clear()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise HolderFailed("the holder of filled memory was not started")
        return self._process.pid

    def assets(self) -> list[bytes]:
        return [asset for asset, slabs in self._held.items() if slabs]

    def count(self, asset: bytes) -> int:
        """Slabs of an asset, the last of which may not be whole."""
        return len(self._held.get(asset, ()))

    def whole(self, asset: bytes) -> list[Slab]:
        """Those filled to their end."""
        return [slab for slab in self._held.get(asset, ()) if slab.done == self.filling.blocks]

    def bytes_held(self) -> int:
        """What all slabs take now."""
        block = self.filling.params.block_kib * 1024
        return sum(slab.done * block for slabs in self._held.values() for slab in slabs)

    async def fill(self, asset: bytes) -> None:
        """Makes the next few blocks of the asset's memory, in a new slab when all are whole."""
        slabs, blocks, block = (
            self._held.setdefault(asset, []),
            self.filling.blocks,
            self.filling.params.block_kib << 10,
        )
        if not slabs or slabs[-1].done == blocks:
            slabs.append(Slab(_memory_file(int(self.filling.params.slab_bytes))))
        slab, index = slabs[-1], len(slabs) - 1
        count = min(AT_ONCE, blocks - slab.done)
        with suppress(SlabGone):
            if slab.file is None:
                await self._pass(slab)
            number, at = index * blocks + slab.done, slab.done * block
            await self._ask("fill", asset, [slab], number=number, at=at, count=count)
            if slab.file is not None:
                slab.done += count

    async def answer(self, asset: bytes, c: bytes) -> proofs_pb2.MemoryCommitment:
        """What the whole slabs answer to challenge c. Raises SlabGone when one was cut off meanwhile."""
        slabs = self.whole(asset)
        if not slabs:
            raise SlabGone
        answered = await self._ask("answer", asset, slabs, c=c.hex())
        return proofs_pb2.MemoryCommitment.FromString(bytes.fromhex(answered))

    async def open(self, commitment: proofs_pb2.MemoryCommitment, c: bytes, seed: bytes) -> proofs_pb2.MemoryProof:
        """Opens the last answers, whether or not their slabs are still there. Raises SlabGone after other answers."""
        given = commitment.SerializeToString(deterministic=True).hex()
        opened = await self._ask("open", commitment.asset, [], commitment=given, c=c.hex(), seed=seed.hex())
        return proofs_pb2.MemoryProof.FromString(bytes.fromhex(opened))

    async def cut(self, asset: bytes, keep: int) -> int:
        """Gives the memory of all slabs but the first `keep` back, at once; returns bytes given back.

        They are free when it returns.
        """
        async with self._cutting:  # who finds nothing more to cut off finds it free, too
            return await self._cut_off(asset, keep)

    async def _cut_off(self, asset: bytes, keep: int) -> int:
        slabs = self._held.get(asset, [])
        gone, self._held[asset] = slabs[keep:], slabs[:keep]
        if not gone:
            return 0
        block, files = self.filling.params.block_kib * 1024, [(slab.own, slab.file) for slab in gone]
        for slab in gone:
            slab.own = slab.file = None
        await asyncio.to_thread(_cut, files, self.pid)
        self._drop += [file for _, file in files if file is not None]
        return sum(slab.done * block for slab in gone)

    async def _pass(self, slab: Slab) -> None:
        async with self._line:
            if slab.own is None or self._channel is None:
                raise SlabGone
            socket.send_fds(self._channel, [b"s"], [slab.own])
            file = int(await self._converse({"do": "take"}))
            if slab.own is None:
                self._drop.append(file)
                raise SlabGone
            slab.file = file
            _close(slab)

    async def _ask(self, do: str, asset: bytes, slabs: list[Slab], **request: Any) -> Any:
        """The holder's result. Its files are named when it is its turn: a number may be another file's by then."""
        params = self.filling.params.SerializeToString(deterministic=True).hex()
        whose = {"asset": asset.hex(), "owner": self.filling.owner.hex(), "params": params}
        async with self._line:
            files = [slab.file for slab in slabs]
            if None in files:
                raise SlabGone
            return await self._converse({"do": do, "files": files} | whose | request)

    async def _converse(self, request: dict[str, Any]) -> Any:
        process, drop = self._process, self._drop
        if process is None or process.stdin is None or process.stdout is None:
            raise HolderFailed("the holder of filled memory was not started")
        self._drop = []
        try:
            process.stdin.write(json.dumps(request | {"drop": drop}).encode() + b"\n")
            async with asyncio.timeout(_ANSWER_S):
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise HolderFailed(f"the holder of filled memory gave no answer in {_ANSWER_S:.0f} s") from error
        except (BrokenPipeError, ConnectionResetError, RuntimeError) as error:
            raise HolderFailed("the holder of filled memory ended") from error
        if not line:
            status = await process.wait()
            text = "the machine ran out of memory" if status == -9 else f"exit status {status}; see this log"
            raise HolderFailed(f"the holder of filled memory ended: {text}")
        answer = json.loads(line)
        if answer.get("gone"):
            raise SlabGone
        if "error" in answer:
            raise HolderFailed(f"filled memory: {answer['error']}: {answer['message']}")
        return answer["result"]


def _memory_file(size: int) -> int:
    file = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    return file


def _cut(files: list[tuple[int | None, int | None]], pid: int) -> None:
    """Seals and empties slabs, by the agent's own descriptors and the holder's; an ended holder freed its own."""
    for own, file in files:
        if own is not None:
            _empty(own)
            os.close(own)
        if file is not None:
            with suppress(FileNotFoundError, ProcessLookupError):
                path = Path(f"/proc/{pid}/fd/{file}")
                if not str(path.readlink()).startswith(f"/memfd:{_NAME}"):
                    continue
                there = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    _empty(there)
                finally:
                    os.close(there)


def _empty(file: int) -> None:
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    os.ftruncate(file, 0)


def _close(slab: Slab) -> None:
    if slab.own is not None:
        os.close(slab.own)
        slab.own = None
