"""Which operations wait for a block: what clients submit and peers tell, decoded, verified and judged.

submit, submit_many -> admit -> Pool -> (a block) -> whoever waits for the outcome
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, Protocol

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import trust_pb2
from hypermesh_ledger.checks import Signature, Verify
from hypermesh_ledger.decoding import decode
from hypermesh_ledger.errors import Undecided
from hypermesh_ledger.execution import Block, Result, Vote, judge, new_lease, signature
from hypermesh_ledger.execution.context import signer_of
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pool import EVERYBODYS_SHARE, OPERATORS_SHARE, Pool, Share, Waiter
from hypermesh_ledger.state import Reader
from hypermesh_ledger.store import Store
from hypermesh_ledger.turns import Busy
from hypermesh_ledger.verdicts import Unsettled, Verdicts
from hypermesh_ledger.verifier import VerifierLost

_log = logging.getLogger(__name__)

TOGETHER: Final = 8
"""Operations of a call that are decoded or judged before others of the event loop have their turn."""
HALT_S: Final = 30.0
"""Longest wait of a submitter in which no block comes: then too few validators are there, or in reach."""
DECIDED: Final = 20_000
"""Transactions of the newest blocks whose outcome a ledger with peers remembers, at most."""
BUSY: Final = 64
"""While so many operations wait, an Allocate is judged once, in its block."""
FIRST_HASH = b"\0" * 32
OUTDATED: Final = frozenset(
    {
        *(Reason.NoSuchAsset, Reason.RevisionConflict, Reason.AssetBusy),
        *(Reason.InsufficientCapacity, Reason.AddressTaken, Reason.NoSuchAllocation),
    }
)
"""Refusals that an operation committed elsewhere may have lifted already. A ledger with peers may be some blocks behind
the one that told its submitter, so it leaves these to the block: else who allocates here and releases there is told
that there is nothing to release."""


class Ledger(Protocol):
    """What admission needs of Core."""

    store: Store
    verdicts: Verdicts
    pool: Pool
    metrics: Metrics
    votes: Sequence[Vote]

    @property
    def base(self) -> Reader:
        """The state that the next block runs on."""


class _Turn:
    """Whose operations are decoded now, and whose are judged."""

    def __init__(self) -> None:
        self.decoding, self.judging = asyncio.Lock(), asyncio.Lock()


class Admission:
    """Of one ledger; everything runs on its event loop."""

    def __init__(self, core: Ledger) -> None:
        self._core = core
        self._calls, self._peers = _Turn(), _Turn()
        """One call after another: the first of many is through before the last is begun, so that blocks have something,
        and each of a block's many steps waits for a few slices of ours and not for one of every call. What peers tell
        has a turn of its own, so that no flood of calls is before it."""
        self._admissions: dict[bytes, asyncio.Task[int | None]] = {}
        self._decided: dict[bytes, Result] = {}
        """The oldest first; only with peers. A peer's copy may come after the block, when its submitter was told."""
        self._refused: dict[bytes, None] = {}
        """The oldest first."""
        self._moved = -math.inf
        """When the newest block was committed here, by the loop's clock."""

    async def submit(self, tx: bytes, patience_s: float = math.inf) -> Result:
        """Admit a client's transaction and wait until a block decided it, or the pool lost it (then height is 0).

        Raises Refused when not admitted, Undecided after patience_s, and when no block comes for HALT_S.
        """
        asked = asyncio.get_running_loop().time()
        tx_hash = operations.tx_hash(tx)
        decided: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def tell(result: Result) -> None:
            if not decided.done():
                decided.set_result(result)

        self._core.pool.wait_for(tx_hash, tell)  # before admission: a block may decide it the moment it is pooled
        try:
            height = await self.admit(tx, tx_hash)
            return await self._decision(decided, asked, patience_s) if height is None else Result(tx_hash, height)
        finally:
            self._core.pool.forget(tx_hash, tell)

    async def _decision(self, waiter: asyncio.Future[Result], asked: float, patience_s: float) -> Result:
        loop = asyncio.get_running_loop()
        while not waiter.done():
            left = min(asked + patience_s, max(asked, self._moved) + HALT_S) - loop.time()
            if left <= 0:
                raise self._undecided(loop.time() - asked)
            await asyncio.wait((waiter,), timeout=left)
        return waiter.result()

    def _undecided(self, waited_s: float) -> Undecided:
        head, age_s = self._core.store.head, time.time() - self._core.store.head.time_ms / 1000
        return Undecided(
            f"no block decided it in {waited_s:.0f} s: the newest block here, {head.height}, is "
            f"{age_s:.0f} s old. It may still be committed; submit the same bytes again, also to another ledger"
        )

    async def submit_many(self, txs: Sequence[bytes]) -> AsyncGenerator[list[tuple[int, Result | Refused]], None]:
        """As `submit` for each of them: places and outcomes, in groups as they are known.

        All signatures are verified together, and what is good and new needs no task of its own. Raises Undecided when
        no block comes; of those not told yet nothing is known.
        """
        known: list[tuple[int, Result | Refused]] = []
        some = asyncio.Event()
        untold = set(range(len(txs)))

        def tell(index: int, outcome: Result | Refused) -> None:
            if index in untold:  # a block may decide it while it is refused here
                untold.remove(index)
                known.append((index, outcome))
                some.set()

        waiters: dict[int, tuple[bytes, Waiter]] = {}

        def judged(index: int, outcome: int | Refused | None) -> None:
            if outcome is None:
                return  # it is pooled
            if index in waiters:
                self._core.pool.forget(*waiters[index])
            tell(index, outcome if isinstance(outcome, Refused) else Result(waiters[index][0], outcome))

        def begin(index: int, tx_hash: bytes) -> None:
            waiters[index] = tx_hash, functools.partial(tell, index)
            self._core.pool.wait_for(*waiters[index])  # before it is judged: a block may decide it once it is pooled

        try:
            found = await self._decoded_in_turn(self._calls, txs)
            for index, decoded in await self._judged_in_turn(self._calls, found, begin, judged):
                try:
                    judged(index, await self.admit(decoded.raw, decoded.tx_hash, decoded))
                except Refused as refusal:
                    judged(index, refusal)
            left = len(txs)
            loop = asyncio.get_running_loop()
            asked = loop.time()
            while left:
                try:
                    async with asyncio.timeout_at(max(asked, self._moved) + HALT_S):
                        await some.wait()
                except TimeoutError:
                    if loop.time() < max(asked, self._moved) + HALT_S:
                        continue  # blocks have come meanwhile, of others' operations
                    raise self._undecided(loop.time() - asked) from None
                some.clear()
                group, known = known, []
                left -= len(group)
                yield group
        finally:
            for tx_hash, waiting in waiters.values():
                self._core.pool.forget(tx_hash, waiting)

    async def hear(self, txs: Sequence[bytes]) -> list[operations.Decoded]:
        """As `admit` for each of them, of peers; those that have to wait for a proof are not admitted but returned."""

        refused: list[Refused] = []

        def judged(_: int, outcome: int | Refused | None) -> None:
            if isinstance(outcome, Refused):
                refused.append(outcome)

        found = await self._decoded_in_turn(self._peers, txs)
        later = await self._judged_in_turn(self._peers, found, lambda *_: None, judged)
        if refused:
            _log.info("%d transactions of a peer refused; the first: %s", len(refused), refused[0])
        return [decoded for _, decoded in later]

    async def _decoded_in_turn(self, turn: _Turn, txs: Sequence[bytes]) -> list[operations.Decoded | Refused]:
        """Signatures are verified outside of the turn: meanwhile the next call is decoded."""
        async with turn.decoding:
            found, checks = await self._decoded(txs)
        await self._settle_signatures(checks)
        return found

    async def _judged_in_turn(
        self,
        turn: _Turn,
        found: Sequence[operations.Decoded | Refused],
        begin: Callable[[int, bytes], None],
        end: Callable[[int, int | Refused | None], None],
    ) -> list[tuple[int, operations.Decoded]]:
        """All that can be judged now, each between `begin` and `end`, which is told what `admit` returns or raises.

        The others are begun, and returned: what waits for a proof is in nobody's way.
        """
        later: list[tuple[int, operations.Decoded]] = []
        async with turn.judging:
            for index, decoded in enumerate(found):
                if index and index % TOGETHER == 0:
                    await asyncio.sleep(0)
                if isinstance(decoded, Refused):
                    self._core.metrics.refused(decoded.reason, "ingress")
                    end(index, decoded)
                    continue
                begin(index, decoded.tx_hash)
                if decoded.tx_hash in self._core.pool:
                    continue
                if decoded.tx_hash in self._admissions:
                    later.append((index, decoded))
                    continue
                try:
                    end(index, self._judged(decoded, turn is self._peers, self._core.verdicts.known))
                except Unsettled:
                    later.append((index, decoded))
                except Refused as refusal:
                    self._core.metrics.refused(refusal.reason, "ingress")
                    end(index, refusal)
        return later

    async def decoded_together(self, txs: Sequence[bytes]) -> list[operations.Decoded | Refused]:
        """Also verifies the signatures, before each of them is judged; what is wrong with one is found then."""
        found, checks = await self._decoded(txs)
        await self._settle_signatures(checks)
        return found

    async def _decoded(self, txs: Sequence[bytes]) -> tuple[list[operations.Decoded | Refused], list[Signature]]:
        found: list[operations.Decoded | Refused] = []
        checks: list[Signature] = []
        for index, tx in enumerate(txs):
            if index and index % TOGETHER == 0:
                await asyncio.sleep(0)
            try:
                decoded = decode(tx)
            except Refused as refusal:
                found.append(refusal)
            else:
                found.append(decoded)
                check = signature(self._core.base, decoded)
                if check is not None:
                    checks.append(check)
        return found, checks

    async def _settle_signatures(self, checks: Sequence[Signature]) -> None:
        with contextlib.suppress(VerifierLost, Busy):
            await self._core.verdicts.settle_signatures(checks)

    async def admit(
        self, tx: bytes, tx_hash: bytes, decoded: operations.Decoded | None = None, heard: bool = False
    ) -> int | None:
        """Check against the committed state and pool it; the same bytes at the same time are checked once.

        decoded: one of many, whose signatures are verified elsewhere; that of one that comes alone is verified here.
        heard: a peer has told it. Returns the height when it is committed already (asking again changes nothing), else
        None: it is pooled and a block will decide. Raises Refused.
        """
        if tx_hash in self._core.pool:
            return None
        try:
            task = self._admissions.get(tx_hash)
            if task is None:
                verdicts = self._core.verdicts
                decoded, verify = (decoded, verdicts.known) if decoded else (decode(tx), verdicts.required)
                try:
                    return self._judged(decoded, heard, verify)
                except Unsettled as unsettled:
                    task = asyncio.ensure_future(self._admit(decoded, heard, unsettled))
                self._admissions[tx_hash] = task
                task.add_done_callback(lambda _: self._admissions.pop(tx_hash, None))
            return await asyncio.shield(task)
        except Refused as refusal:
            self._core.metrics.refused(refusal.reason, "ingress")
            raise

    async def _admit(self, decoded: operations.Decoded, heard: bool, unsettled: Unsettled) -> int | None:
        while True:
            await self._settle(unsettled, decoded)
            try:
                return self._judged(decoded, heard, self._core.verdicts.known)
            except Unsettled as another:
                unsettled = another

    def _judged(self, decoded: operations.Decoded, heard: bool, verify: Verify) -> int | None:
        """Its height, or None and it is in the pool. Raises Refused, and what `verify` raises."""
        decided = self._decided.get(decoded.tx_hash)
        if decided is not None:
            if decided.reason is not None:
                raise Refused(decided.reason, decided.message)
            return decided.height
        head = self._core.store.head
        moment = max(head.time_ms, time.time_ns() // 1_000_000)
        block = Block(head.height + 1, moment, FIRST_HASH, (), self._core.votes)
        try:
            height = self._height(block, decoded, heard, verify)
        except Refused as refusal:
            came_again = decoded.tx_hash in self._refused
            if came_again or not self._core.pool.gossips or refusal.reason not in OUTDATED:
                raise
            height = block.height
        if height <= head.height:
            return height
        self._core.pool.add(decoded, self._share(decoded.read.signer), heard)
        return None

    def _height(self, block: Block, decoded: operations.Decoded, heard: bool, verify: Verify) -> int:
        """As `judge`, but an Allocate's terms are left to its block when a peer has judged them, and while many wait.

        Not of what a block has refused: anybody may bring it again, and fill its signer's share with it.
        """
        base = self._core.base
        left = (heard or len(self._core.pool) >= BUSY) and decoded.tx_hash not in self._refused
        return block.height if left and new_lease(base, block, decoded, verify) else judge(base, block, decoded, verify)

    def _share(self, signer: bytes) -> Share:
        """How much of the pool a key may fill; an operator speaks for a whole cluster."""
        known = signer_of(self._core.base, signer)
        is_operator = known is not None and known.body.role == trust_pb2.ROLE_OPERATOR
        return OPERATORS_SHARE if is_operator else EVERYBODYS_SHARE

    async def _settle(self, unsettled: Unsettled, decoded: operations.Decoded) -> None:
        try:
            await self._core.verdicts.settle(unsettled.check, decoded.read.signer)
        except VerifierLost as error:
            text = f"The {decoded.kind} operation's signature or proof could not be verified: {error}"
            raise Refused(Reason.Malformed, text) from error
        except Busy as error:
            raise Refused(Reason.MempoolFull, "Too many signatures or proofs are waiting to be verified.") from error

    def decided(self, results: Sequence[Result]) -> None:
        """A block was committed. With peers, what it said is remembered; without, nothing comes late."""
        self._moved = asyncio.get_running_loop().time()
        for result in results:
            if result.reason is not None:
                self._refused[result.tx_hash] = None
        _drop_oldest(self._refused)
        if not self._core.pool.gossips:
            return
        for result in results:
            if result.reason is None or result.tx_hash not in self._decided:
                self._decided[result.tx_hash] = result
        _drop_oldest(self._decided)


def _drop_oldest(decided: dict[bytes, Any]) -> None:
    for tx_hash in list(itertools.islice(decided, max(len(decided) - DECIDED, 0))):
        del decided[tx_hash]
