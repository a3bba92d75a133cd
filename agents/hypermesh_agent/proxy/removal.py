"""Takes everything away that the proxy part ever put on a node: `python -m hypermesh_agent.proxy.removal`.

Run it after the agent is gone for good: connections to proxy addresses end and tenants' bytes are lost. Each step is
independent and may be repeated.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from hypermesh_agent.enforcement import cgroups, mounts
from hypermesh_agent.proxy.config import ProxyConfig
from hypermesh_agent.proxy.kernel import NetlinkKernel
from hypermesh_agent.proxy.routes import RouteTable

_log = logging.getLogger(__name__)


def remove(config: ProxyConfig) -> list[str]:
    """Removes table, routes, regions and groups; returns what went wrong, one sentence each."""
    problems: list[str] = []

    def step(what: str, deed: Callable[[], None]) -> None:
        try:
            deed()
        except Exception as error:  # noqa: BLE001 - the other steps are still worth doing
            problems.append(f"{what}: {error}")

    step("nftables table ip6 hypermesh", lambda: NetlinkKernel().drop())
    step("routes", _routes)
    step("memory regions", lambda: _memory(config.state / "memory"))
    if config.pool is not None and (regions := config.pool / "regions").exists():
        step("storage regions", lambda: shutil.rmtree(regions))
    step("control groups", lambda: _groups(config.cgroup_root))
    return problems


def _routes() -> None:
    table = RouteTable()
    for route in table.read().values():
        table.remove(route)


def _memory(directory: Path) -> None:
    mounts.unmount(directory)
    if directory.exists():
        directory.rmdir()


def _groups(root: Path) -> None:
    found = cgroups.find(root, Path("/proc/self/cgroup").read_text())
    for controller in {found.memory.directory: found.memory, found.cpu.directory: found.cpu}.values():
        controller.remove_all()


def main() -> int:
    """Exit status 1 when something could not be removed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    problems = remove(ProxyConfig.from_environment(os.environ))
    for problem in problems:
        _log.error("%s", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
