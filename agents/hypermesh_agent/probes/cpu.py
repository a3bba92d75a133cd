"""CPU pools: one Asset for each NUMA node that has CPUs.

Unit: millicores, where one core is one logical CPU (a hardware thread), as everywhere in Kubernetes. Capacity counts
the CPUs the machine may use: online, and within the cpuset and quota its control groups put in force.
Sources: /proc/cpuinfo, /sys/devices/system/cpu (Documentation/admin-guide/cputopology.rst, pm/cpufreq.rst).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from hypermesh.quantities import render

from ..hardware import Hardware, Json, Kind, hardware_id, printable
from ..readings import Tree, cpu_list, cpu_list_text, fields, integer
from ..reserves import NOTHING, Reserve, spread
from . import numa
from .cgroups import Limits
from .numa import CPUS, NumaNode

FLAGS: Final = 512


def probe(tree: Tree, machine: str, limits: Limits, reserve: Reserve = NOTHING) -> tuple[Hardware, ...]:
    """One Hardware for each NUMA node with usable CPUs. Raises Unreadable when the kernel's lists make no sense."""
    described = parse_cpuinfo(tree.text("/proc/cpuinfo") or "")
    pools = [(node, usable) for node in numa.read(tree) if (usable := _usable(node, limits))]
    quota = limits.millicores
    whole = sum(len(cpus) * 1000 for _, cpus in pools)
    granted = spread(min(whole, quota if quota is not None else whole), [len(cpus) for _, cpus in pools])
    kept = spread(reserve.of(sum(granted)), granted)
    return tuple(
        Hardware(
            kind=Kind.CPU,
            hardware_id=hardware_id(machine, f"numa{node.number}"),
            size=millicores,
            capacity=max(0, millicores - held),
            detail=_detail(tree, node, cpus, described, limits),
            readings=_readings(tree, cpus, described),
            attributes=_hybrid(tree, cpus),
        )
        for (node, cpus), millicores, held in zip(pools, granted, kept, strict=True)
    )


def parse_cpuinfo(text: str) -> dict[int, dict[str, str]]:
    """Fields of each `processor` block by its number; a block without number (s390x, some arm) is passed over."""
    blocks: dict[int, dict[str, str]] = {}
    for chunk in text.split("\n\n"):
        block = fields(chunk)
        number = integer(block.get("processor"))
        if number is not None and number >= 0:
            blocks.setdefault(number, block)
    return blocks


def _usable(node: NumaNode, limits: Limits) -> tuple[int, ...]:
    return tuple(cpu for cpu in node.cpus if limits.cpus is None or cpu in limits.cpus)


def _detail(
    tree: Tree, node: NumaNode, cpus: tuple[int, ...], described: dict[int, dict[str, str]], limits: Limits
) -> dict[str, Json]:
    first = next((described[cpu] for cpu in cpus if cpu in described), {})
    packages = {tree.integer(f"{CPUS}/cpu{cpu}/topology/physical_package_id") or 0 for cpu in cpus}
    cores = {_core(tree, cpu) for cpu in cpus}
    detail: dict[str, Json] = {
        "architecture": os.uname().machine,
        "numaNode": node.number,
        "sockets": len(packages),
        "cores": len(cores),
        "threads": len(cpus),
        "cpus": cpu_list_text(cpus),
        "flags": list[Json](sorted(set((first.get("flags") or first.get("Features") or "").split()))[:FLAGS]),
    }
    model = first.get("model name") or first.get("Model") or first.get("cpu") or _part(first)
    texts = {"model": model, "vendor": first.get("vendor_id") or first.get("CPU implementer", "")}
    detail |= {key: text for key, value in texts.items() if (text := printable(value))}
    ends = {"minMHz": min(_frequencies(tree, cpus, "cpuinfo_min_freq"), default=0) // 1000}
    ends["maxMHz"] = max(_frequencies(tree, cpus, "cpuinfo_max_freq"), default=0) // 1000
    if frequency := {key: value for key, value in ends.items() if value}:
        detail["frequency"] = dict[str, Json](frequency)
    governors = {tree.text(f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus}
    if governor := ",".join(sorted(filter(None, governors))):
        detail["governor"] = printable(governor, 64)
    if limits.millicores is not None:
        detail["cgroupLimit"] = render("cores", limits.millicores)
    return detail


def _readings(tree: Tree, cpus: tuple[int, ...], described: dict[int, dict[str, str]]) -> dict[str, Json]:
    """Mean current frequency: cpufreq where the kernel has it, else what /proc/cpuinfo says."""
    current = [khz // 1000 for khz in _frequencies(tree, cpus, "scaling_cur_freq")]
    if not current:
        texts = (described.get(cpu, {}).get("cpu MHz", "").partition(".")[0] for cpu in cpus)
        current = [mhz for mhz in map(integer, texts) if mhz is not None and mhz > 0]
    return {"frequency": {"currentMHz": sum(current) // len(current)}} if current else {}


def _frequencies(tree: Tree, cpus: Iterable[int], name: str) -> list[int]:
    """Kilohertz, of the CPUs that have the attribute."""
    values = (tree.integer(f"{CPUS}/cpu{cpu}/cpufreq/{name}") for cpu in cpus)
    return [value for value in values if value is not None and value > 0]


def _core(tree: Tree, cpu: int) -> str:
    """Threads of one core name the same siblings; without topology every CPU is a core of its own."""
    topology = f"{CPUS}/cpu{cpu}/topology"
    siblings = tree.text(f"{topology}/core_cpus_list") or tree.text(f"{topology}/thread_siblings_list")
    return siblings or str(cpu)


def _hybrid(tree: Tree, cpus: tuple[int, ...]) -> dict[str, str]:
    """Performance and efficiency threads of a hybrid processor (perf's cpu_core and cpu_atom devices)."""
    performance = set(cpu_list(tree.text("/sys/devices/cpu_core/cpus") or ""))
    efficiency = set(cpu_list(tree.text("/sys/devices/cpu_atom/cpus") or ""))
    if not performance or not efficiency:
        return {}
    return {
        "performanceThreads": str(sum(cpu in performance for cpu in cpus)),
        "efficiencyThreads": str(sum(cpu in efficiency for cpu in cpus)),
    }


def _part(block: dict[str, str]) -> str:
    """arm64 names no model: implementer and part numbers (MIDR_EL1) stand for it."""
    if "CPU part" not in block:
        return ""
    return f"implementer {block.get('CPU implementer', '?')} part {block['CPU part']}"
