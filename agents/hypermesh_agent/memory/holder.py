"""The process that holds filled memory: ``python -m hypermesh_agent.memory.holder SOCKET CGROUP_FILE``.

    SOCKET  memory files (memfd_create(2)), one with each `take`; the agent makes them and keeps none
    stdin   one JSON request a line: {"do": …, …, "drop": [files to close]}        bytes are hexadecimal
    stdout  one JSON answer a line: {"result": …}, {"gone": true}, or {"error": kind, "message": …}

It does nothing by itself: the agent asks for a few blocks at a time, so that an epoch's question waits for no more.
Blocks are written with pwrite(2) and read with pread(2), never mapped: when the agent cuts a file off, under way or
not, a write is refused (EPERM, of its seal), a read is short, and both are answered with `gone`.

Everything free that the agent fills belongs to this process alone, and to a control group of its own. When the machine
runs out of memory before the agent has given enough back, the kernel ends this process first (oom_score_adj), and with
it goes all of it; so it does when the agent dies.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

from hypermesh.proofs import ProofRefused, fill, memory, verify_memory
from hypermesh.proofs.challenges import memory_key, memory_question
from hypermesh.v1 import proofs_pb2
from hypermesh_agent.children import die_with_parent

Request = dict[str, Any]

FILLING_NICENESS: Final = 19
ANSWERING_NICENESS: Final = 5
"""As other provers: what fills may wait for ever, what answers has a deadline."""
_FIRST_TO_GO: Final = "1000"


class Gone(Exception):
    """A file was cut off: its memory is needed."""


class Holder:
    """What was answered last for each asset stays here until it is opened."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._answered: dict[bytes, list[list[bytes]]] = {}

    def take(self, request: Request) -> int:
        """The next file from the socket; its number in this process."""
        _, files, _, _ = socket.recv_fds(self._channel, 1, 1)
        return files[0]

    def fill(self, request: Request) -> None:
        """Make `count` blocks of a memory, the first of them block `number`, and write them to the file at `at`."""
        _be_nice(FILLING_NICENESS)
        params, asset = _params(request), _bytes(request, "asset")
        key, size = memory_key(_bytes(request, "owner"), asset, params), params.block_kib * 1024
        buffer = memoryview(bytearray(size))
        for index in range(request["count"]):
            fill.fill_block(key, request["number"] + index, params.block_kib, params.passes, buffer)
            if _cut(os.pwrite, request["files"][0], buffer, request["at"] + index * size) != size:
                raise Gone

    def answer(self, request: Request) -> str:
        """What the memory in `files` answers to challenge `c`: the commitment."""
        _be_nice(ANSWERING_NICENESS)
        params, asset, files = _params(request), _bytes(request, "asset"), request["files"]
        question, size = memory_question(_bytes(request, "c"), asset, len(files)), params.block_kib * 1024
        buffer, answers = memoryview(bytearray(size)), list[bytes]()
        for file in files:
            for at in range(0, params.slab_bytes, size):
                if _cut(os.preadv, file, [buffer], at) != size:
                    raise Gone
                answers.append(memory.answer(question, len(answers), buffer, params))
        self._answered[asset] = levels = memory.tree(answers)
        return _hex(proofs_pb2.MemoryCommitment(asset=asset, slabs=len(files), root=levels[-1][0]))

    def open(self, request: Request) -> str:
        """The proof that `seed` asks of the last answers; verified here, so that no wrong one leaves the node."""
        _be_nice(ANSWERING_NICENESS)
        params, asset, seed = _params(request), _bytes(request, "asset"), _bytes(request, "seed")
        commitment = proofs_pb2.MemoryCommitment.FromString(_bytes(request, "commitment"))
        levels = self._answered.pop(asset, None)
        if levels is None or levels[-1][0] != commitment.root:
            raise Gone
        proof = memory.open_blocks(levels, seed, commitment, params)
        verify_memory(_bytes(request, "owner"), _bytes(request, "c"), seed, commitment, proof, params)
        return _hex(proof)

    def reply_to(self, line: str) -> dict[str, Any]:
        """Serve one request; what the agent can act on becomes an answer, everything else ends the process."""
        request: Request = json.loads(line)
        for file in request["drop"]:
            os.close(file)
        actions = {"take": self.take, "fill": self.fill, "answer": self.answer, "open": self.open}
        try:
            return {"result": actions[request["do"]](request)}
        except Gone:
            return {"gone": True}
        except (fill.FillFailed, ProofRefused) as error:
            return {"error": type(error).__name__, "message": str(error)}


def _cut(call: Any, file: int, data: Any, at: int) -> int:
    """Bytes that were moved; a write beyond the end of a sealed file moves none."""
    try:
        return int(call(file, data, at))
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return 0


def _be_nice(niceness: int) -> None:
    if os.getpriority(os.PRIO_PROCESS, 0) != niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def _bytes(request: Request, name: str) -> bytes:
    return bytes.fromhex(request[name])


def _params(request: Request) -> proofs_pb2.MemoryParameters:
    return proofs_pb2.MemoryParameters.FromString(_bytes(request, "params"))


def _hex(message: proofs_pb2.MemoryCommitment | proofs_pb2.MemoryProof) -> str:
    return message.SerializeToString(deterministic=True).hex()


def main() -> None:
    die_with_parent()
    Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    # Only now, with all code loaded: what this process itself needs is the agent's to account for.
    Path(sys.argv[2]).write_text("0")
    holder = Holder(socket.socket(fileno=int(sys.argv[1])))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(holder.reply_to(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
