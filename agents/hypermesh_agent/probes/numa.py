"""NUMA nodes of the machine: which CPUs and which memory lie together.

Source: /sys/devices/system/node (Documentation/ABI/stable/sysfs-devices-node). A kernel without NUMA has no such
directory and counts as one node 0. A node may have CPUs without memory, or memory without CPUs (CXL expanders).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..hardware import Unreadable
from ..readings import Tree, cpu_list, integer

NODES: Final = "/sys/devices/system/node"
CPUS: Final = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class NumaNode:
    number: int
    cpus: tuple[int, ...]


def online_cpus(tree: Tree) -> tuple[int, ...]:
    """CPUs the kernel schedules on. Raises Unreadable when neither sysfs nor /proc/cpuinfo tells."""
    if text := tree.text(f"{CPUS}/online"):
        return cpu_list(text)
    listed = (
        line.partition(":")[2] for line in (tree.text("/proc/cpuinfo") or "").splitlines() if line[:9] == "processor"
    )
    cpus = tuple(sorted({cpu for cpu in map(integer, listed) if cpu is not None}))
    if not cpus:
        raise Unreadable(f"neither {CPUS}/online nor /proc/cpuinfo lists a CPU; mount the machine's /sys and /proc")
    return cpus


def read(tree: Tree) -> tuple[NumaNode, ...]:
    """Nodes by number, each with its online CPUs; CPUs no node claims go to the first node."""
    online = set(online_cpus(tree))
    numbers = sorted(
        number
        for name in tree.names(NODES)
        if name.startswith("node") and (number := integer(name[4:])) is not None and number >= 0
    )
    nodes: list[NumaNode] = []
    left = set(online)
    for number in numbers:
        cpus = tuple(cpu for cpu in cpu_list(tree.text(f"{NODES}/node{number}/cpulist") or "") if cpu in left)
        left.difference_update(cpus)
        nodes.append(NumaNode(number, cpus))
    if not nodes:
        return (NumaNode(0, tuple(sorted(online))),)
    first = nodes[0]
    return (NumaNode(first.number, tuple(sorted({*first.cpus, *left}))), *nodes[1:])
