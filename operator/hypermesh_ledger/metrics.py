"""What Prometheus sees of the ledger."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, votes_pb2
from hypermesh_ledger.consensus import Consensus
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool import Class, Pool
from hypermesh_ledger.pool.limits import WHOLE
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.verifier import Verifier

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BETWEEN: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
PROOFS: Final = ("space", "stake", "work", "time")


def proof_of(reason: Reason) -> str | None:
    """Which of the four proofs a refusal is about: a ticket that is missing, stale or foreign, or a proof refused.

    Memory's are of space.
    """
    for proof in PROOFS:
        if reason.value.startswith((f"{proof.title()}Ticket", f"{proof.title()}Proof")):
            return proof
    return "space" if reason.value.startswith(("MemoryTicket", "MemoryLate")) else None


class Metrics:
    """Counters of one process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._height = Gauge("hypermesh_ledger_height", "Newest committed block", registry=registry)
        self._time = Gauge("hypermesh_ledger_block_time_seconds", "Time of that block", registry=registry)
        self._operations = Counter("hypermesh_ledger_operations_total", "Operations committed", registry=registry)
        self._refused = Counter(
            "hypermesh_ledger_refused_total", "Operations refused", ["reason", "where"], registry=registry
        )
        self._execute = Histogram(
            "hypermesh_ledger_execute_seconds", "Execution of a block", buckets=_SECONDS, registry=registry
        )
        self._commit = Histogram(
            "hypermesh_ledger_commit_seconds", "Write of a block", buckets=_SECONDS, registry=registry
        )
        self._pool = Gauge("hypermesh_ledger_pool", "Transactions waiting for a block", ["class"], registry=registry)
        self._pool_bytes = Gauge("hypermesh_ledger_pool_bytes", "Their size", registry=registry)
        self._evicted = Counter(
            "hypermesh_ledger_pool_evicted_total",
            "Transactions that gave way to others in a full pool",
            ["class"],
            registry=registry,
        )
        self._expired = Counter(
            "hypermesh_ledger_pool_expired_total",
            "Transactions whose validity ended in the pool",
            ["class"],
            registry=registry,
        )
        self._votes = Counter("hypermesh_ledger_extended_blocks_total", "Blocks with extended votes", registry=registry)
        self._silent = Counter(
            "hypermesh_ledger_empty_extensions_total", "Votes in them that said nothing beside", registry=registry
        )
        self._unextended = Counter(
            "hypermesh_ledger_extension_failures_total", "Own votes whose extension failed", registry=registry
        )
        self._rejected = Counter(
            "hypermesh_ledger_rejected_proposals_total",
            "Proposals rejected for wrong votes or transactions",
            registry=registry,
        )
        self._apart = Gauge(
            "hypermesh_ledger_clock_apart_seconds",
            "Median of the validators' clocks minus block time",
            registry=registry,
        )
        self._rechecks = Counter(
            "hypermesh_ledger_rechecks_total",
            "Work results that this validator was drawn for, by its verdict",
            ["outcome"],
            registry=registry,
        )
        for name in ("agree", "disagree", "skipped"):
            self._rechecks.labels(name)
        self._measured = Counter(
            "hypermesh_ledger_place_sessions_total",
            "Nodes that called to be measured: measured, refused for now, or failed to show what they must",
            ["outcome"],
            registry=registry,
        )
        for name in ("measured", "refused", "failed"):
            self._measured.labels(name)
        self._watches = Gauge("hypermesh_ledger_watches", "Open watches", registry=registry)
        self._proof_failures = Counter(
            "hypermesh_ledger_proof_failures_total",
            "Operations refused for one of the four proofs, or for its ticket",
            ["proof", "where"],
            registry=registry,
        )
        for proof in PROOFS:
            for where in ("ingress", "block"):
                self._proof_failures.labels(proof, where)
        self._between = Histogram(
            "hypermesh_ledger_block_interval_seconds",
            "Block time from one block to the next",
            buckets=_BETWEEN,
            registry=registry,
        )
        self._last_ms = 0
        self._extra_rounds = Counter(
            "hypermesh_ledger_extra_rounds_total",
            "Rounds that blocks took beyond the first: a proposer was late or absent",
            registry=registry,
        )
        self._validators = Gauge("hypermesh_ledger_validators", "Validators that may sign blocks", registry=registry)
        self._present = Gauge(
            "hypermesh_ledger_validators_present",
            "Of them, those whose vote is in the newest block's commit",
            registry=registry,
        )
        self._signed = Gauge(
            "hypermesh_ledger_validator_signed_ratio",
            "Share of the newest blocks, 100 at most, that a validator signed",
            ["validator"],
            registry=registry,
        )
        self._signers: set[str] = set()
        self._pool_limit = Gauge("hypermesh_ledger_pool_limit", "Transactions that may wait", registry=registry)
        self._pool_limit_bytes = Gauge("hypermesh_ledger_pool_limit_bytes", "Their size at most", registry=registry)
        self._pool_limit.set(WHOLE.txs)
        self._pool_limit_bytes.set(WHOLE.bytes)
        self._queue = Gauge("hypermesh_ledger_verifier_queue", "Proofs that wait for a verdict", registry=registry)
        self._working_height = Gauge(
            "hypermesh_ledger_consensus_height",
            "Block that CometBFT works on; 0 when it does not answer",
            registry=registry,
        )
        self._working_round = Gauge(
            "hypermesh_ledger_consensus_round", "Round of that block that it is in", registry=registry
        )
        self._peers = Gauge("hypermesh_ledger_peers", "Connected peers of CometBFT", registry=registry)
        self._snapshots = Gauge("hypermesh_ledger_snapshots", "State-sync snapshots on the disk", registry=registry)
        self._snapshot_height = Gauge(
            "hypermesh_ledger_snapshot_height", "Height of the newest of them; 0 without any", registry=registry
        )
        self._volume = Gauge("hypermesh_ledger_volume_bytes", "Size of the ledger's volume", registry=registry)
        self._volume_free = Gauge("hypermesh_ledger_volume_free_bytes", "What is free of it", registry=registry)

    def watch(self, pool: Pool, watches: Callable[[], float]) -> None:
        """Where the gauges read their values."""
        for rank in Class:
            self._pool.labels(rank.name.lower()).set_function(functools.partial(pool.count, rank))
            self._evicted.labels(rank.name.lower())
            self._expired.labels(rank.name.lower())
        self._pool_bytes.set_function(lambda: pool.size)
        self._watches.set_function(watches)

    def watch_process(self, verifier: Verifier, consensus: Consensus, snapshots: Snapshots, home: Path) -> None:
        """Where the gauges of the process and its surroundings read their values, at each scrape."""
        self._queue.set_function(lambda: verifier.waiting)
        self._working_height.set_function(lambda: consensus.now.height)
        self._working_round.set_function(lambda: consensus.now.round)
        self._peers.set_function(lambda: consensus.now.peers)
        self._snapshots.set_function(lambda: len(snapshots.heights()))
        self._snapshot_height.set_function(lambda: max(snapshots.heights(), default=0))
        self._volume.set_function(lambda: shutil.disk_usage(home).total)
        self._volume_free.set_function(lambda: shutil.disk_usage(home).free)

    def decided(self, decided_round: int, standings: Sequence[ledger_pb2.Standing]) -> None:
        """What a block says of the one before: its round, and who signed it."""
        self._extra_rounds.inc(decided_round)
        self._validators.set(len(standings))
        self._present.set(sum(each.signed_last for each in standings))
        names = {each.address.hex(): each for each in standings}
        for gone in self._signers - names.keys():
            self._signed.remove(gone)
        self._signers = set(names)
        for name, each in names.items():
            self._signed.labels(name).set(each.signed_blocks / each.counted_blocks)

    def lost(self, reason: Reason, rank: Class) -> None:
        """A transaction of this class left the pool undecided: MempoolFull or Expired."""
        (self._expired if reason is Reason.Expired else self._evicted).labels(rank.name.lower()).inc()

    def refused(self, reason: Reason, where: str) -> None:
        """where: ingress or block."""
        self._refused.labels(reason.value, where).inc()
        if (proof := proof_of(reason)) is not None:
            self._proof_failures.labels(proof, where).inc()

    def rejected(self) -> None:
        """A proposal did not show the votes of its last commit, or held what is no transaction."""
        self._rejected.inc()

    def rechecked(self, outcome: votes_pb2.RecheckOutcome) -> None:
        """This validator is done with a result."""
        name = votes_pb2.RecheckOutcome.Name(outcome).removeprefix("RECHECK_OUTCOME_").lower()
        self._rechecks.labels(name).inc()

    def measured(self, outcome: str) -> None:
        """A session of a node's network place ended: measured, refused or failed."""
        self._measured.labels(outcome).inc()

    def unextended(self) -> None:
        """This validator votes with an empty extension."""
        self._unextended.inc()

    def extended(self, silent: int, clock: votes_pb2.VoteClock | None) -> None:
        """A block showed votes, so many of them silent; clock when enough told theirs."""
        self._votes.inc()
        self._silent.inc(silent)
        if clock is not None:
            self._apart.set((clock.median_ms - clock.block_ms) / 1000)

    def executed(self, seconds: float) -> None:
        """A block was executed."""
        self._execute.observe(seconds)

    def committed(self, head: ledger_pb2.Block, results: Sequence[Result], seconds: float) -> None:
        """A block was committed."""
        self._height.set(head.height)
        self._time.set(head.time_ms / 1000)
        if self._last_ms:
            self._between.observe(max(0, head.time_ms - self._last_ms) / 1000)
        self._last_ms = head.time_ms
        self._commit.observe(seconds)
        refusals = [result.reason for result in results if result.reason is not None]
        self._operations.inc(len(results) - len(refusals))
        for reason in refusals:
            self.refused(reason, "block")
