"""The agent's figures in one registry, through all its lives."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from hypermesh_agent.metrics import Metrics


def test_a_figure_is_followed_anew_after_a_renewal() -> None:
    """The agent's parts begin again with newer papers, and name the same figures."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.follow("epoch_seconds", "Time.", lambda: 1.0)
    metrics.follow("epoch_seconds", "Time.", lambda: 2.0)
    assert registry.get_sample_value("hypermesh_agent_epoch_seconds") == 2.0
