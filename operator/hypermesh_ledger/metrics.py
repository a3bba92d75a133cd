"""What Prometheus sees of the ledger."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool import Class, Pool

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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
        self._watches = Gauge("hypermesh_ledger_watches", "Open watches", registry=registry)

    def watch(self, pool: Pool, watches: Callable[[], float]) -> None:
        """Where the gauges read their values."""
        for rank in Class:
            self._pool.labels(rank.name.lower()).set_function(functools.partial(pool.count, rank))
            self._evicted.labels(rank.name.lower())
            self._expired.labels(rank.name.lower())
        self._pool_bytes.set_function(lambda: pool.size)
        self._watches.set_function(watches)

    def lost(self, reason: Reason, rank: Class) -> None:
        """A transaction of this class left the pool undecided: MempoolFull or Expired."""
        (self._expired if reason is Reason.Expired else self._evicted).labels(rank.name.lower()).inc()

    def refused(self, reason: Reason, where: str) -> None:
        """where: ingress or block."""
        self._refused.labels(reason.value, where).inc()

    def executed(self, seconds: float) -> None:
        """A block was executed."""
        self._execute.observe(seconds)

    def committed(self, head: ledger_pb2.Block, results: Sequence[Result], seconds: float) -> None:
        """A block was committed."""
        self._height.set(head.height)
        self._time.set(head.time_ms / 1000)
        self._commit.observe(seconds)
        for result in results:
            if result.reason is None:
                self._operations.inc()
            else:
                self.refused(result.reason, "block")
