"""A proposed block executed while validators vote on it, so that FinalizeBlock finds it done.

    ProcessProposal accepts -> expect -> the answer is on its way -> begin -> (votes are counted meanwhile)
    FinalizeBlock -> of: what came out, if it is of exactly that block; else nothing, and the block is executed there

Execution is pure: it reads the state of the height before, which nothing changes until that height's Commit, and
writes nothing. So a block that is not decided costs its execution, one a round, for which the next votes wait, and
leaves nothing behind but, perhaps, verdicts on its proofs, which are true.

Seen elsewhere: optimistic execution in the Cosmos SDK (0.50, since ProcessProposal).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

from hypermesh_ledger.execution import Block

Done = TypeVar("Done")


class Ahead(Generic[Done]):
    """Of one ledger, a block at a time; everything runs on its event loop."""

    def __init__(self, execute: Callable[[Block], Coroutine[None, None, Done]]) -> None:
        self._execute = execute
        self._expected: Block | None = None
        self._begun: tuple[Block, asyncio.Task[Done]] | None = None

    def expect(self, block: Block) -> None:
        """This one may be decided; `begin` follows."""
        self._expected = block

    def begin(self) -> None:
        """Execute what is expected. Called when nobody waits for an answer any more."""
        block = self._expected
        if block is not None:
            self.drop()
            self._begun = block, asyncio.create_task(self._execute(block))

    def drop(self) -> None:
        """Whatever is expected or begun is of no use."""
        self._expected = None
        if self._begun is not None:
            task = self._begun[1]
            self._begun = None
            task.add_done_callback(_heard)
            task.cancel()

    async def of(self, block: Block) -> Done | None:
        """What executing this very block gave; None when another was begun, or none, or that failed."""
        if self._begun is None or self._begun[0] != block:
            self.drop()
            return None
        task = self._begun[1]
        await asyncio.wait((task,))
        self._begun = self._expected = None
        return None if task.cancelled() or task.exception() else task.result()


def _heard(task: asyncio.Task[Done]) -> None:
    """What failed is told by the execution that matters."""
    if not task.cancelled():
        task.exception()
