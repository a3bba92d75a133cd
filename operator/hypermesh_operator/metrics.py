"""Figures of this process for Prometheus; names begin with hypermesh_operator_."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ALLOCATIONS = Gauge("hypermesh_operator_allocations", "Allocation resources known.")
QUEUED = Gauge("hypermesh_operator_queued", "Allocations waiting for a worker.")
WAITING = Gauge("hypermesh_operator_waiting", "Allocations for which no asset fits now.")
STEPS = Counter("hypermesh_operator_steps_total", "Steps done, by kind.", ["step"])
REFUSALS = Counter("hypermesh_operator_refusals_total", "Operations that the ledger refused, by reason.", ["reason"])
FAILURES = Counter("hypermesh_operator_failures_total", "Turns that ended in an error and are tried again.")
ORPHANS = Counter("hypermesh_operator_orphans_released_total", "Allocations on the ledger released by the sweep.")
EVENTS_DROPPED = Counter("hypermesh_operator_events_dropped_total", "Events not written because too many waited.")
LEADER = Gauge("hypermesh_operator_leader", "1 while this replica acts.")
LEDGER_AGE = Gauge("hypermesh_operator_ledger_age_seconds", "Seconds since the ledger's last word or new block.")
READY_SECONDS = Histogram(
    "hypermesh_operator_ready_seconds",
    "From creation of an Allocation to its condition Ready (whole seconds of the API server's clock).",
    buckets=(1, 2, 3, 5, 10, 30, 60, 300, float("inf")),
)
