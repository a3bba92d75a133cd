"""The application between its two edges: ABCI on one side, gRPC clients on the other, state and pool between.

    Submit -> admit -> Pool -> PrepareProposal -> ... consensus ... -> FinalizeBlock -> Commit -> waiters and followers
                                                  (executed meanwhile: see ahead)

Everything here runs on one event loop, the disk's commit too; only many signatures, proofs and looks back leave it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypermesh import operations
from hypermesh.v1 import ledger_pb2, votes_pb2
from hypermesh_ledger import home, keys, outcomes
from hypermesh_ledger.admission import Admission
from hypermesh_ledger.ahead import Ahead
from hypermesh_ledger.checks import Check
from hypermesh_ledger.consensus import Consensus
from hypermesh_ledger.decoding import decode
from hypermesh_ledger.execution import Block, Outcome, Vote, execute, extensions
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.laggards import Laggards
from hypermesh_ledger.looking import Looking
from hypermesh_ledger.measuring import Places
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pace import Pace
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.presence import Presence
from hypermesh_ledger.rechecking import Rechecks
from hypermesh_ledger.retention import Retention, WithPeers
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.state import Memory, Reader
from hypermesh_ledger.store import Prepared, Store
from hypermesh_ledger.telling import Telling
from hypermesh_ledger.verdicts import Unsettled, Verdicts
from hypermesh_ledger.watches import Watches


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
        self.admission = Admission(self)
        self.watches = Watches(store)
        self.retention: Retention | WithPeers = Retention()
        self.born: Memory | None = None
        """The genesis state between InitChain and the first commit."""
        self.pending: Pending | None = None
        self.ahead = Ahead(self._executed)
        self.rechecks: Rechecks | None = None
        """Of a ledger with peers."""
        self.places: Places | None = None
        """Of a ledger with peers."""
        self.votes: Sequence[Vote] = ()
        """Of the newest block executed: who signs blocks now."""
        self.telling: Telling | None = None
        """Of a ledger with peers."""
        self.presence = Presence()
        self.pace = Pace()
        self.laggards: Laggards | None = None
        """Of a ledger without peers that others may join."""
        self.consensus = Consensus(home.RPC_SOCKET)
        self.failing: Callable[[], Mapping[str, str]] = dict
        """Readiness checks that fail now, and why."""
        self.snapshots = snapshots or Snapshots(Path("snapshots"), 0)
        self.restoring: Restoring | None = None
        self.restored = 0
        """Height of the snapshot that this process has made its state; 0 for none."""
        self.past = Looking(store, self.snapshots)

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

    async def finalize(self, block: Block) -> Pending:
        """The effect of a decided block on the committed state; nothing is written yet."""
        self.votes = block.votes
        self.pending = await self.ahead.of(block) or await self._executed(block)
        self.metrics.executed(self.pending.seconds)
        return self.pending

    async def _executed(self, block: Block) -> Pending:
        started = time.perf_counter()
        decoded = await self._decoded_block(block.txs)
        while True:
            unsettled: dict[bytes, Check] = {}
            outcome = execute(
                self.base,
                block,
                functools.partial(self._required, unsettled),
                lambda tx: decoded.get(tx) or decode(tx),
            )
            if not unsettled:
                break
            await asyncio.gather(*map(self.verdicts.settle, unsettled.values()))
        writes = outcome.writes if self.born is None else {**self.born.entries, **outcome.writes}
        prepared = self.store.prepare(block.height, block.time_ms, writes)
        return Pending(block, outcome, prepared, time.perf_counter() - started)

    async def _decoded_block(self, txs: Sequence[bytes]) -> dict[bytes, operations.Decoded]:
        """Of what did not wait here, signatures are verified first, all together (see verdicts)."""
        waiting = {tx: self.pool.decoded(operations.tx_hash(tx)) for tx in txs}
        arrived = await self.admission.decoded_together([tx for tx, decoded in waiting.items() if decoded is None])
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
        self.store.commit(pending.prepared, row)  # in no thread: LMDB's calls give up the interpreter, each
        self.store.advance(pending.prepared)
        self.past.take_snapshot()
        self.born = None
        seconds = time.perf_counter() - started
        self.pace.took(len(pending.outcome.operations), pending.seconds + seconds)
        self.metrics.committed(pending.prepared.head, pending.outcome.operations, seconds)
        self._tell_extended(pending)
        self.admission.decided(pending.outcome.operations)
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
