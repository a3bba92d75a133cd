"""The ledger as it is, with one difference: its application lies while a file says how.

    python lying_ledger.py LIE run --home ...       (then the same arguments as hypermesh-ledger)

The file LIE holds a word, and is read at every call, so that one process can be honest, lie, and be honest again:

- `app-hash`: it executes blocks to another state than everybody else, consistently: CometBFT is told, and it is stored;
- `propose`: its proposals hold what lies in the directory LIE.txs, whatever that is, behind the votes that a block
  begins with, and it takes them for well formed;
- `no-votes`, `votes-twice`, `votes-changed`, `fewer-votes`: its proposals begin with that;
- `late-noise`: its votes come late, when the others commit, and carry what no validator may say;
- `withhold`: its proposals do not leave; PrepareProposal answers when the lie is over.

Each lie told adds a line to LIE.told.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import votes_pb2
from hypermesh_ledger import application, core, main
from hypermesh_ledger.abci import server
from hypermesh_ledger.execution import Outcome, extensions
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

NOISE: Final = b"\xff"
LATE_S: Final = 0.1
"""The others take less to commit a block: so some of these votes come while they do, when nobody asks about them."""


def fewer(tx: bytes) -> list[bytes]:
    """Two at most of those in the last commit."""
    commit = votes_pb2.ExtendedCommit.FromString(tx.removeprefix(extensions.PREFIX))
    del commit.votes[2:]
    return [extensions.encode(commit)]


VOTES: Final[dict[str, Callable[[bytes], list[bytes]]]] = {
    "no-votes": lambda tx: [],
    "votes-twice": lambda tx: [tx, tx],
    "votes-changed": lambda tx: [tx[:-1] + bytes([tx[-1] ^ 1])],
    "fewer-votes": fewer,
}


class Liar:
    """Wraps the application's methods. Only the test knows of it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def says(self, lie: str) -> bool:
        return self._file.exists() and self._file.read_text() == lie

    def told(self, lie: str) -> None:
        with Path(f"{self._file}.told").open("a") as log:
            log.write(f"{lie}\n")

    def made_up(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(Path(f"{self._file}.txs").iterdir())]

    def install(self) -> None:
        extend, check = server.METHODS["extend_vote"], server.METHODS["verify_vote_extension"]
        execute, prepare, process = core.execute, server.METHODS["prepare_proposal"], server.METHODS["process_proposal"]

        def executed(*arguments: Any) -> Outcome:
            outcome = execute(*arguments)
            if not self.says("app-hash"):
                return outcome
            self.told("app-hash")
            return dataclasses.replace(outcome, writes={**outcome.writes, b"zz/mine": b"all of it"})

        async def prepared(ours: core.Core, request: abci.RequestPrepareProposal) -> abci.ResponsePrepareProposal:
            if self.says("propose"):
                honest = await prepare(ours, request)
                self.told("propose")
                votes = [tx for tx in honest.txs[:1] if extensions.recognise(tx)]
                return abci.ResponsePrepareProposal(txs=votes + self.made_up())
            for lie, wrong in VOTES.items():
                if self.says(lie):
                    honest = await prepare(ours, request)
                    self.told(lie)
                    return abci.ResponsePrepareProposal(txs=[*wrong(honest.txs[0]), *honest.txs[1:]])
            if self.says("withhold"):
                self.told("withhold")
                while self.says("withhold"):  # noqa: ASYNC110 - another process ends it
                    await asyncio.sleep(0.05)
            answer: abci.ResponsePrepareProposal = await prepare(ours, request)
            return answer

        async def processed(ours: core.Core, request: abci.RequestProcessProposal) -> abci.ResponseProcessProposal:
            if any(self.says(lie) for lie in ("propose", *VOTES)):
                return abci.ResponseProcessProposal(status=abci.ResponseProcessProposal.ACCEPT)
            answer: abci.ResponseProcessProposal = await process(ours, request)
            return answer

        async def extended(ours: core.Core, request: abci.RequestExtendVote) -> abci.ResponseExtendVote:
            if self.says("late-noise"):
                await asyncio.sleep(random.uniform(0, LATE_S))
                self.told("late-noise")
                return abci.ResponseExtendVote(vote_extension=NOISE)
            answer: abci.ResponseExtendVote = await extend(ours, request)
            return answer

        async def checked(
            ours: core.Core, request: abci.RequestVerifyVoteExtension
        ) -> abci.ResponseVerifyVoteExtension:
            if request.vote_extension == NOISE:  # its own: CometBFT asks before it signs
                return abci.ResponseVerifyVoteExtension(status=abci.ResponseVerifyVoteExtension.ACCEPT)
            answer: abci.ResponseVerifyVoteExtension = await check(ours, request)
            return answer

        core.execute = executed
        server.METHODS["extend_vote"], server.METHODS["verify_vote_extension"] = extended, checked
        server.METHODS["prepare_proposal"], server.METHODS["process_proposal"] = prepared, processed


def run() -> int:
    """The supervisor, or (named by it) the application."""
    file, *arguments = sys.argv[1:]
    if arguments[0] == "application":
        Liar(Path(file)).install()
        return application.main(arguments[1:])
    original = main.application_command
    prefix = [sys.executable, "-P", __file__, file, "application"]
    main.application_command = lambda options: [*prefix, *original(options)[4:]]
    return main.main(arguments)


if __name__ == "__main__":
    sys.exit(run())
