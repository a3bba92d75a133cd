"""The embedded cluster with the chart installed, made once by the same command a user types."""

from __future__ import annotations

import pytest

from .support import Mesh, run


def demo(*arguments: str) -> Mesh:
    """The mesh of this very source: `make demo` builds what changed, rolls it out, and checks that it is healthy."""
    run(["make", "demo", *arguments], timeout=3000)
    return Mesh(run(["make", "-s", "kubeconfig"]).stdout.strip())


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """One node."""
    return demo()


@pytest.fixture(scope="session")
def three() -> Mesh:
    """Three nodes; the smaller mesh is taken down first."""
    run(["make", "demo-clean"], timeout=300)
    return demo("NODES=3")
