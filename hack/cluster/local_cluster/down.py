"""`down`: ends exactly what this cluster started, and leaves nothing, whatever state it was left in.

What to end is known twice: the record (pid and start time), and the cluster's cgroup, in which every process of it
is, recorded or not. Mounts, network and nftables live in the machines' namespaces and end with them.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from local_cluster import cgroups, network
from local_cluster.processes import wait_gone
from local_cluster.state import ClusterError, State, load, remove_data

KILL_SECONDS = 30.0
CGROUP_SECONDS = 20.0
LINK_SECONDS = 10.0


def power_off(state: State, names: Sequence[str]) -> None:
    """Cuts the power of machines: kills their first process and whatever else is in their cgroup."""
    for name in names:
        process = state.machines.pop(name, None)
        if process is not None:
            process.signal(signal.SIGKILL)
        kill_members(f"{state.plan.cgroup}/{name}")
    state.save()


def kill_members(cgroup: str) -> None:
    """Kills every process below a cgroup, then removes it; raises ClusterError when something stays."""
    deadline = time.monotonic() + KILL_SECONDS
    while members := cgroups.members(cgroup):
        for process in members:
            process.signal(signal.SIGKILL)
        remaining = wait_gone(members, 1.0)
        if remaining and time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in remaining)
            raise ClusterError(f"processes {pids} of {cgroup} do not end; look at them with ps, then try again")
        if not remaining:
            break
    left = cgroups.remove(cgroup, CGROUP_SECONDS)
    if left:
        raise ClusterError(f"cgroups {', '.join(map(str, left))} are still in use; try again")


def down(directory: Path, *, keep: bool) -> None:
    """Ends the cluster; removes its data unless `keep`. Raises ClusterError when something could not be ended."""
    state = load(directory)
    power_off(state, list(state.machines))
    kill_members(state.plan.cgroup)
    remove_link(state)
    unmount(directory)
    state.save()
    if not keep:
        remove_data(directory)


def remove_link(state: State) -> None:
    """The host's link goes with the switch's namespace; if it has not, it is deleted, if it is ours."""
    link, ours = state.plan.host_link, network.alias(state.directory)
    deadline = time.monotonic() + LINK_SECONDS
    while (owner := network.links().get(link)) is not None:
        if owner != ours or time.monotonic() > deadline:
            raise ClusterError(f"link {link} is still there (it says {owner!r}); `ip link delete {link}` removes it")
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True, timeout=LINK_SECONDS)


def unmount(directory: Path) -> None:
    """Mounts below the state directory that somebody made in the host's namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4]) for line in lines]
    for point in reversed([point for point in points if point.is_relative_to(directory)]):
        subprocess.run(["umount", "--lazy", str(point)], check=True, capture_output=True, timeout=LINK_SECONDS)
