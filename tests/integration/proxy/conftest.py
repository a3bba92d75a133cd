from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(Path(__file__).parent))  # last: it shadows nothing
sys.path.append(str(ROOT / "tests" / "unit" / "proxy"))
sys.path.append(str(ROOT / "hack" / "cluster"))

from local_cluster.private_api import private_api  # noqa: E402
from namespaces import Wire, run, wired  # noqa: E402
from node_under_test import install_definitions  # noqa: E402
from proxy_world import World, make_world  # noqa: E402


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def loopback() -> None:
    """`lo` is down in a new namespace."""
    run("ip", "link", "set", "lo", "up")


@pytest.fixture(scope="module")
def wire(loopback: None) -> Iterator[Wire]:
    """Another network namespace, the consumer's, one wire away."""
    with wired() as made:
        yield made


@pytest.fixture(scope="module")
def kubeconfig(loopback: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An API server with this checkout's CRDs."""
    with private_api(tmp_path_factory.mktemp("api"), ROOT / "build" / "bin") as api:
        install_definitions(api.kubeconfig)
        yield api.kubeconfig
