"""The embedded cluster with the chart installed, made once by the same command a user types."""

from __future__ import annotations

import pytest

from .support import ROOT, Mesh, run


def installed() -> Mesh | None:
    """The mesh of an earlier test or `make demo`, when it is up and has the wanted number of nodes."""
    if not (ROOT / "build" / "cluster").exists():
        return None
    kubeconfig = run(["make", "-s", "kubeconfig"], check=False)
    if kubeconfig.returncode != 0:
        return None
    path = kubeconfig.stdout.strip()
    healthy = run(["kubectl-hypermesh", "check"], check=False, KUBECONFIG=path)
    return Mesh(path) if healthy.returncode == 0 else None


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    """A healthy mesh of this very source: `make demo` builds what changed and rolls it out."""
    run(["make", "demo"], timeout=3000)
    found = installed()
    assert found is not None, "make demo ended well, but the mesh is not healthy: see kubectl hypermesh check"
    return found
