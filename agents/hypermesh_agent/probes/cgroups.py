"""Limits that control groups already put on this machine's work, cgroup v2 and v1.

A machine can itself be a container or a slice of one (a kind node, a local cluster's node, a virtual private server):
then its CPUs and memory are what the group of its first process may use, whatever /proc says. The limits of all groups
from there to the root are combined. `../` at the head of a path in /proc/1/cgroup (cgroup_namespaces(7)) means a group
above the reader's own namespace; those levels are invisible, the visible rest still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..hardware import Unreadable
from ..readings import Tree, cpu_list, integer

MOUNT: Final = "/sys/fs/cgroup"
UNLIMITED: Final = 1 << 60
"""cgroup v1 writes 'no limit' as the largest page-aligned signed number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """cpus: the cpuset in force. millicores: the tightest quota. memory: bytes. None where nothing limits."""

    cpus: frozenset[int] | None = None
    millicores: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """Path of a process's group for each v1 controller, and in the unified (v2) hierarchy."""

    v1: dict[str, str]
    unified: str | None


def parse_groups(text: str) -> Groups:
    """Lines `id:controllers:path` of /proc/PID/cgroup (cgroups(7)); lines of another form are passed over."""
    v1: dict[str, str] = {}
    unified = None
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or not parts[2].startswith("/"):
            continue
        names = [name for name in parts[2].split("/") if name not in ("", "..", ".")]
        path = "/" + "/".join(names)
        if parts[0] == "0" and not parts[1]:
            unified = path
        else:
            v1.update(dict.fromkeys(filter(None, parts[1].split(",")), path))
    return Groups(v1, unified)


def parse_quota(text: str | None) -> int | None:
    """Millicores of a v2 `cpu.max` ("max 100000", "150000 100000"); None for no limit or another form."""
    words = (text or "").split()
    if len(words) != 2:
        return None
    return _millicores(integer(words[0]), integer(words[1]))


def read(tree: Tree, process: str = "1") -> Limits:
    """Limits on the group of `process` and all visible groups above it."""
    groups = parse_groups(tree.text(f"/proc/{process}/cgroup") or "")
    if groups.unified is not None and tree.exists(f"{MOUNT}/cgroup.controllers"):
        return _unified(tree, groups.unified)
    return _v1(tree, groups.v1)


def _unified(tree: Tree, path: str) -> Limits:
    quotas, memories, cpus = [], [], None
    for level in _levels(MOUNT, path):
        quotas.append(parse_quota(tree.text(f"{level}/cpu.max")))
        memories.append(_bytes(tree.text(f"{level}/memory.max")))
        cpus = cpus or _cpus(tree.text(f"{level}/cpuset.cpus.effective"))
    return Limits(cpus, _least(quotas), _least(memories))


def _v1(tree: Tree, paths: dict[str, str]) -> Limits:
    quotas, memories, cpus = [], [], None
    for level in _levels(_mount(tree, "cpu"), paths.get("cpu", "/")):
        quota, period = (tree.integer(f"{level}/cpu.cfs_{name}_us") for name in ("quota", "period"))
        quotas.append(_millicores(quota, period))
    for level in _levels(_mount(tree, "memory"), paths.get("memory", "/")):
        memories.append(_bytes(tree.text(f"{level}/memory.limit_in_bytes")))
    for level in _levels(_mount(tree, "cpuset"), paths.get("cpuset", "/")):
        cpus = cpus or _cpus(tree.text(f"{level}/cpuset.effective_cpus")) or _cpus(tree.text(f"{level}/cpuset.cpus"))
    return Limits(cpus, _least(quotas), _least(memories))


def _mount(tree: Tree, controller: str) -> str:
    """Controllers can be mounted together (`cpu,cpuacct`), with a link for each."""
    if tree.exists(f"{MOUNT}/{controller}"):
        return f"{MOUNT}/{controller}"
    together = (name for name in tree.names(MOUNT) if controller in name.split(","))
    return f"{MOUNT}/{next(together, controller)}"


def _levels(mount: str, path: str) -> list[str]:
    """Directories from the group up to the root of the hierarchy."""
    names = [name for name in path.split("/") if name]
    return ["/".join([mount, *names[:depth]]) for depth in range(len(names), -1, -1)]


def _millicores(quota: int | None, period: int | None) -> int | None:
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return quota * 1000 // period


def _bytes(text: str | None) -> int | None:
    value = integer(text)
    return value if value is not None and 0 < value < UNLIMITED else None


def _cpus(text: str | None) -> frozenset[int] | None:
    try:
        return frozenset(cpu_list(text)) or None if text else None
    except Unreadable:
        return None


def _least(values: list[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
