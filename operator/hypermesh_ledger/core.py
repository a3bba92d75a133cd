"""The application between its two edges: ABCI on one side, gRPC clients on the other, state and pool between.

    Submit -> admit -> Pool -> PrepareProposal -> ... consensus ... -> FinalizeBlock -> Commit -> waiters and followers

Everything here runs on one event loop; only signatures, proofs and the disk's commit leave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import lmdb

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2, votes_pb2
from hypermesh_ledger import home, keys, outcomes
from hypermesh_ledger.checks import Check, Signature
from hypermesh_ledger.consensus import Consensus
from hypermesh_ledger.errors import HeightNotKept, TooManyLookBack, Undecided
from hypermesh_ledger.execution import Block, Outcome, Result, Vote, execute, extensions, judge, signature
from hypermesh_ledger.execution.context import read, signer_of
from hypermesh_ledger.history import Past
from hypermesh_ledger.inbox import Inbox
from hypermesh_ledger.measuring import Places
from hypermesh_ledger.merkle import Proof
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pace import Pace
from hypermesh_ledger.pool import EVERYBODYS_SHARE, OPERATORS_SHARE, Pool, Share, Waiter
from hypermesh_ledger.presence import Presence
from hypermesh_ledger.rechecking import Rechecks
from hypermesh_ledger.retention import Retention, WithPeers
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.state import Memory, Reader
from hypermesh_ledger.store import Prepared, Store
from hypermesh_ledger.turns import Busy
from hypermesh_ledger.verdicts import Unsettled, Verdicts
from hypermesh_ledger.verifier import VerifierLost
from hypermesh_ledger.watches import Watches

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TOGETHER: Final = 16
"""Operations judged before others of the event loop have their turn."""
LOOK_BACK_S: Final = 5.0
"""Longest wait until an old height is looked at, behind others that look back."""
HALT_S: Final = 30.0
"""Longest wait of a submitter in which no block comes: then too few validators are there, or in reach."""
DECIDED: Final = 20_000
"""Transactions of the newest blocks whose outcome a ledger with peers remembers, at most."""
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


@dataclass(slots=True)
class Pending:
    """A block executed but not committed."""

    block: Block
    outcome: Outcome
    prepared: Prepared
    seconds: float


@dataclass(slots=True)
class Restoring:
    """A snapshot on its way into the state."""

    height: int
    app_hash: bytes
    chunks: int
    applied: set[int]


class Core:
    """What the ABCI methods and the gRPC service share."""

    def __init__(
        self, store: Store, verdicts: Verdicts, pool: Pool, metrics: Metrics, snapshots: Snapshots | None = None
    ) -> None:
        self.store = store
        self.verdicts = verdicts
        self.pool = pool
        self.metrics = metrics
        pool.lost = metrics.lost
        self.inbox = Inbox(self.admit)
        self.watches = Watches(store)
        self.retention: Retention | WithPeers = Retention()
        self.born: Memory | None = None
        """The genesis state between InitChain and the first commit."""
        self.pending: Pending | None = None
        self.rechecks: Rechecks | None = None
        """Of a ledger with peers."""
        self.places: Places | None = None
        """Of a ledger with peers."""
        self.votes: Sequence[Vote] = ()
        """Of the newest block executed: who signs blocks now."""
        self.presence = Presence()
        self.pace = Pace()
        self.consensus = Consensus(home.RPC_SOCKET)
        self.failing: Callable[[], Mapping[str, str]] = dict
        """Readiness checks that fail now, and why."""
        self._admissions: dict[bytes, asyncio.Task[int | None]] = {}
        self._decided: dict[bytes, Result] = {}
        """The oldest first; only with peers. A peer's copy may come after the block, when its submitter was told."""
        self._moved = -math.inf
        """When the newest block was committed here, by the loop's clock."""
        self.snapshots = snapshots or Snapshots(Path("snapshots"), 0)
        self.restoring: Restoring | None = None
        self.restored = 0
        """Height of the snapshot that this process has made its state; 0 for none."""
        self._taking: asyncio.Future[None] | None = None
        self._looking_back = asyncio.Semaphore(1)

    @property
    def applied(self) -> int:
        """Parts of a snapshot that are in the state, while one is restored."""
        return len(self.restoring.applied) if self.restoring is not None else 0

    @property
    def base(self) -> Reader:
        """The state that the next block runs on."""
        return self.born if self.born is not None else self.store.snapshot

    @property
    def chain_id(self) -> str:
        """As the genesis fixed it; empty before."""
        return (self.base.get(keys.CHAIN_ID) or b"").decode()

    def extension(self) -> bytes:
        """What this validator says beside its next vote."""
        verdicts = self.rechecks.verdicts() if self.rechecks is not None else []
        told = self.places.told() if self.places is not None else []
        said = operations.canonical(
            votes_pb2.VoteExtension(
                clock_ms=time.time_ns() // 1_000_000, verdicts=verdicts, round_trips=told, rules=extensions.RULES
            )
        )
        if len(said) > extensions.MAX_EXTENSION_BYTES:
            raise ValueError(f"an extension of {len(said)} bytes")
        return said

    # -- transactions ----------------------------------------------------------------------------------------

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

        self.pool.wait_for(tx_hash, tell)  # before admission: a block may decide it the moment it is pooled
        try:
            height = await self.admit(tx, tx_hash)
            return await self._decision(decided, asked, patience_s) if height is None else Result(tx_hash, height)
        finally:
            self.pool.forget(tx_hash, tell)

    async def _decision(self, waiter: asyncio.Future[Result], asked: float, patience_s: float) -> Result:
        loop = asyncio.get_running_loop()
        while not waiter.done():
            left = min(asked + patience_s, max(asked, self._moved) + HALT_S) - loop.time()
            if left <= 0:
                raise self._undecided(loop.time() - asked)
            await asyncio.wait((waiter,), timeout=left)
        return waiter.result()

    def _undecided(self, waited_s: float) -> Undecided:
        head, age_s = self.store.head, time.time() - self.store.head.time_ms / 1000
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

        waiters: list[tuple[bytes, Waiter]] = []
        try:
            for index, decoded in enumerate(await self._decoded_together(txs)):
                if index % TOGETHER == TOGETHER - 1:
                    await asyncio.sleep(0)
                if isinstance(decoded, Refused):
                    self.metrics.refused(decoded.reason, "ingress")
                    tell(index, decoded)
                    continue
                tx_hash, waiter = decoded.tx_hash, functools.partial(tell, index)
                self.pool.wait_for(tx_hash, waiter)  # first: a block may decide it the moment it is pooled
                waiters.append((tx_hash, waiter))
                try:
                    height = await self.admit(decoded.raw, tx_hash, decoded)
                except Refused as refusal:
                    self.pool.forget(tx_hash, waiter)
                    tell(index, refusal)
                else:
                    if height is not None:
                        self.pool.forget(tx_hash, waiter)
                        tell(index, Result(tx_hash, height))
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
            for tx_hash, waiting in waiters:
                self.pool.forget(tx_hash, waiting)

    async def _decoded_together(self, txs: Sequence[bytes]) -> list[operations.Decoded | Refused]:
        """Also verifies the signatures, before each of them is judged; what is wrong with one is found then."""
        found: list[operations.Decoded | Refused] = []
        checks: list[Signature] = []
        for index, tx in enumerate(txs):
            try:
                decoded = operations.decode(tx)
            except Refused as refusal:
                found.append(refusal)
            else:
                found.append(decoded)
                check = signature(self.base, decoded)
                if check is not None:
                    checks.append(check)
            if index % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(0)
        with contextlib.suppress(VerifierLost, Busy):
            await self.verdicts.settle_signatures(checks)
        return found

    async def admit(self, tx: bytes, tx_hash: bytes, decoded: operations.Decoded | None = None) -> int | None:
        """Check against the committed state and pool it; the same bytes at the same time are checked once.

        Returns the height when it is committed already (asking again changes nothing), else None: it is pooled
        and a block will decide. Raises Refused.
        """
        if tx_hash in self.pool:
            return None
        try:
            task = self._admissions.get(tx_hash)
            if task is None:
                decoded = decoded or operations.decode(tx)
                try:
                    return self._judged(decoded, tx)
                except Unsettled as unsettled:
                    task = asyncio.ensure_future(self._admit(decoded, tx, unsettled))
                self._admissions[tx_hash] = task
                task.add_done_callback(lambda _: self._admissions.pop(tx_hash, None))
            return await asyncio.shield(task)
        except Refused as refusal:
            self.metrics.refused(refusal.reason, "ingress")
            raise

    async def _admit(self, decoded: operations.Decoded, tx: bytes, unsettled: Unsettled) -> int | None:
        while True:
            await self._settle(unsettled, decoded)
            try:
                return self._judged(decoded, tx)
            except Unsettled as another:
                unsettled = another

    def _judged(self, decoded: operations.Decoded, tx: bytes) -> int | None:
        """Its height, or None and it is in the pool. Raises Refused, Unsettled."""
        decided = self._decided.get(decoded.tx_hash)
        if decided is not None:
            if decided.reason is not None:
                raise Refused(decided.reason, decided.message)
            return decided.height
        head = self.store.head
        moment = max(head.time_ms, time.time_ns() // 1_000_000)
        block = Block(head.height + 1, moment, FIRST_HASH, (), self.votes)
        try:
            height = judge(self.base, block, decoded, self.verdicts.known)
        except Refused as refusal:
            if not self.pool.gossips or refusal.reason not in OUTDATED:
                raise
            height = block.height
        if height <= head.height:
            return height
        self.pool.add(decoded, tx, self._share(decoded.envelope.signer))
        return None

    def _share(self, signer: bytes) -> Share:
        """How much of the pool a key may fill; an operator speaks for a whole cluster."""
        known = signer_of(self.base, signer)
        is_operator = known is not None and known.body.role == trust_pb2.ROLE_OPERATOR
        return OPERATORS_SHARE if is_operator else EVERYBODYS_SHARE

    async def _settle(self, unsettled: Unsettled, decoded: operations.Decoded) -> None:
        try:
            await self.verdicts.settle(unsettled.check, decoded.envelope.signer)
        except VerifierLost as error:
            text = f"The {decoded.kind} operation's signature or proof could not be verified: {error}"
            raise Refused(Reason.Malformed, text) from error
        except Busy as error:
            raise Refused(Reason.MempoolFull, "Too many signatures or proofs are waiting to be verified.") from error

    # -- blocks ----------------------------------------------------------------------------------------------

    async def finalize(self, block: Block) -> Pending:
        """Execute a decided block on the committed state; nothing is written yet."""
        started = time.perf_counter()
        self.votes = block.votes
        decoded = await self._decoded_block(block.txs)
        while True:
            unsettled: dict[bytes, Check] = {}
            outcome = execute(
                self.base,
                block,
                functools.partial(self._required, unsettled),
                lambda tx: decoded.get(tx) or operations.decode(tx),
            )
            if not unsettled:
                break
            await asyncio.gather(*map(self.verdicts.settle, unsettled.values()))
        writes = outcome.writes if self.born is None else {**self.born.entries, **outcome.writes}
        prepared = self.store.prepare(block.height, block.time_ms, writes)
        self.pending = Pending(block, outcome, prepared, time.perf_counter() - started)
        self.metrics.executed(self.pending.seconds)
        return self.pending

    async def _decoded_block(self, txs: Sequence[bytes]) -> dict[bytes, operations.Decoded]:
        """Of what did not wait here, signatures are verified first, all together and beside the interpreter."""
        waiting = {tx: self.pool.decoded(operations.tx_hash(tx)) for tx in txs}
        arrived = await self._decoded_together([tx for tx, decoded in waiting.items() if decoded is None])
        known = {tx: decoded for tx, decoded in waiting.items() if decoded is not None}
        return known | {each.raw: each for each in arrived if isinstance(each, operations.Decoded)}

    def _required(self, unsettled: dict[bytes, Check], check: Check) -> None:
        """Takes a check for passed that is not settled yet, and notes it: this execution will be thrown away."""
        try:
            self.verdicts.required(check)
        except Unsettled:
            unsettled[check.key] = check

    async def commit(self) -> ledger_pb2.Block:
        """Make the executed block durable, then visible: readers, submitters, followers. Returns the new head."""
        pending, self.pending = self.pending, None
        if pending is None:
            raise ValueError("Commit without FinalizeBlock")
        started = time.perf_counter()
        row = outcomes.row_of(pending.block.time_ms, pending.outcome.operations)
        await asyncio.get_running_loop().run_in_executor(None, self.store.commit, pending.prepared, row)
        self.store.advance(pending.prepared)
        self._take_snapshot()
        self.born = None
        self._moved = asyncio.get_running_loop().time()
        seconds = time.perf_counter() - started
        self.pace.took(len(pending.outcome.operations), pending.seconds + seconds)
        self.metrics.committed(pending.prepared.head, pending.outcome.operations, seconds)
        self._tell_extended(pending)
        self._remember(pending.outcome.operations)
        self.pool.decide(pending.outcome.operations, pending.block.time_ms)
        if self.rechecks is not None:
            self.rechecks.committed(pending.prepared.writes.items(), self.store.snapshot)
        if self.places is not None:
            self.places.committed(pending.prepared.writes.items())
        self.watches.publish(pending.prepared.writes.items(), pending.prepared.head)
        return pending.prepared.head

    def _tell_extended(self, pending: Pending) -> None:
        commit = pending.outcome.extended
        if commit is not None:
            clock = extensions.clock_of(commit, len(pending.block.votes), pending.block.time_ms)
            self.metrics.extended(len(commit.votes) - len(extensions.heard(commit)), clock)

    def _remember(self, results: Sequence[Result]) -> None:
        """What the newest blocks said; without peers nothing comes late, and the state answers."""
        if not self.pool.gossips:
            return
        for result in results:
            if result.reason is None or result.tx_hash not in self._decided:
                self._decided[result.tx_hash] = result
        for tx_hash in list(itertools.islice(self._decided, max(len(self._decided) - DECIDED, 0))):
            del self._decided[tx_hash]

    # -- the past --------------------------------------------------------------------------------------------

    async def prove(self, key: bytes, height: int) -> tuple[int, Proof]:
        """Height and proof of a key's value or absence; height 0 is the newest that a header covers.

        Raises HeightNotKept, TooManyLookBack.
        """
        if not height:
            height = self.store.head.height - 1
        return height, await self._look_back(height, lambda past: past.prove(key))

    async def past_value(self, key: bytes, height: int) -> bytes | None:
        """Raises HeightNotKept, TooManyLookBack."""
        return await self._look_back(height, lambda past: past.get(key))

    async def _look_back(self, height: int, look: Callable[[Past], Answer]) -> Answer:
        """In a thread that rests as long as it works, and only one at a time, also when whoever asked has gone.

        A block waits for it for milliseconds; whoever asks for old heights waits for the others, up to LOOK_BACK_S.
        """
        try:
            async with asyncio.timeout(LOOK_BACK_S):
                await self._looking_back.acquire()
        except TimeoutError:
            raise TooManyLookBack("Too many ask for older states; ask again later, or another ledger.") from None
        looking = asyncio.ensure_future(self._looked(height, look))
        looking.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(looking)

    async def _looked(self, height: int, look: Callable[[Past], Answer]) -> Answer:
        try:
            return await asyncio.to_thread(_look, self.store.past(height), look)
        finally:
            self._looking_back.release()

    def _take_snapshot(self) -> None:
        """Of the newest height when it is due, unless the one before is still being written."""
        if self.snapshots.due(self.store.head.height) and (self._taking is None or self._taking.done()):
            self._taking = asyncio.ensure_future(self._taken(self.store.past(self.store.head.height)))

    async def _taken(self, past: Past) -> None:
        try:
            await asyncio.to_thread(self.snapshots.take, past)
        except (OSError, HeightNotKept, lmdb.Error) as error:
            _log.error("no snapshot of height %d: %s", past.height, error)

    # -- reading ---------------------------------------------------------------------------------------------

    def status(self) -> ledger_pb2.StatusResponse:
        """What Status answers."""
        head, state = self.store.head, self.store.snapshot
        return ledger_pb2.StatusResponse(
            chain_id=(state.get(keys.CHAIN_ID) or b"").decode(),
            height=head.height,
            block_time_ms=head.time_ms,
            app_hash=head.app_hash,
            epoch=read(state, keys.EPOCH, ledger_pb2.Epoch),
            genesis=read(state, keys.GENESIS, ledger_pb2.Genesis),
            mempool=len(self.pool),
        )


def _look(past: Past, look: Callable[[Past], Answer]) -> Answer:
    with past:
        return look(past)
