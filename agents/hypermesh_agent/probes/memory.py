"""Memory pools: one Asset for each NUMA node that has memory.

Unit: bytes. Size is the kernel's MemTotal (or the control group's limit where that is lower). Capacity leaves out what
is set aside as huge pages, which ordinary memory cannot use, and the owner's reserve. Neither follows the free memory
of the moment, so what is given stays given.
Sources: proc_meminfo(5), /sys/devices/system/node/nodeN/meminfo, Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

from hypermesh.quantities import render

from ..hardware import Hardware, Json, Kind, Unreadable, hardware_id
from ..readings import Tree, fields, integer
from ..reserves import NOTHING, Reserve, spread
from . import numa
from .cgroups import Limits
from .numa import NODES


def probe(tree: Tree, machine: str, limits: Limits, reserve: Reserve = NOTHING) -> tuple[Hardware, ...]:
    """One Hardware for each NUMA node with memory. Raises Unreadable when /proc/meminfo has no MemTotal.

    The nodes' own MemTotal moves with a balloon driver while /proc/meminfo's need not; so the nodes only say in which
    proportion the machine's total lies on them.
    """
    machine_wide = parse_meminfo(tree.text("/proc/meminfo") or "")
    total = machine_wide.get("MemTotal", 0)
    if total <= 0:
        raise Unreadable("/proc/meminfo has no MemTotal; mount the machine's /proc")
    nodes = {node.number: _node_meminfo(tree, node.number) for node in numa.read(tree)}
    with_memory = [number for number, info in nodes.items() if info.get("MemTotal", 0) > 0] or [min(nodes)]
    weights = [nodes[number].get("MemTotal", 1) for number in with_memory]
    sizes = spread(min(total, limits.memory or total), weights)
    kept = spread(reserve.of(sum(sizes)), sizes)
    found = []
    for number, size, held in zip(with_memory, sizes, kept, strict=True):
        pages = _huge_pages(tree, number)
        set_aside = sum(page * count for page, count, _ in pages)
        capacity = max(0, size - set_aside - held)
        detail: dict[str, Json] = {
            "numaNode": number,
            "total": render("memory", size),
            "reserved": render("memory", size - capacity),
            "allocatable": render("memory", capacity),
            "hugePages": [{"size": render("memory", page), "total": count} for page, count, _ in pages],
            "swapTotal": render("memory", machine_wide.get("SwapTotal", 0)),
        }
        if limits.memory is not None and limits.memory < total:
            detail["cgroupLimit"] = render("memory", limits.memory)
        found.append(
            Hardware(
                kind=Kind.MEMORY,
                hardware_id=hardware_id(machine, f"numa{number}"),
                size=size,
                capacity=capacity,
                detail=detail,
                readings={
                    "hugePages": [
                        {"size": render("memory", page), "total": count, "free": free} for page, count, free in pages
                    ],
                    "swapFree": render("memory", machine_wide.get("SwapFree", 0)),
                },
            )
        )
    return tuple(found)


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by field name, of /proc/meminfo and, with its `Node N ` prefix, of a node's file.

    Lines that count pages instead of bytes (`HugePages_Total: 8`) keep their count.
    """
    found: dict[str, int] = {}
    for name, value in fields(text).items():
        words = value.split()
        number = integer(words[0]) if words else None
        if number is None or number < 0:
            continue
        short = name.split()[-1] if name.startswith("Node ") else name
        found[short] = number * 1024 if words[1:] == ["kB"] else number
    return found


def _node_meminfo(tree: Tree, number: int) -> dict[str, int]:
    return parse_meminfo(tree.text(f"{NODES}/node{number}/meminfo") or "")


def _huge_pages(tree: Tree, number: int) -> list[tuple[int, int, int]]:
    """(bytes a page, pages, free pages) of each size that has any on this node; without NUMA the machine's own."""
    base = f"{NODES}/node{number}/hugepages"
    if not tree.exists(base):
        base = "/sys/kernel/mm/hugepages"
    pages = []
    for name in tree.names(base):
        kilobytes = integer(name.removeprefix("hugepages-").removesuffix("kB"))
        count = tree.integer(f"{base}/{name}/nr_hugepages")
        if kilobytes and count and kilobytes > 0 and count > 0:
            pages.append((kilobytes * 1024, count, max(0, tree.integer(f"{base}/{name}/free_hugepages") or 0)))
    return pages
