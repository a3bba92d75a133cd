"""Machines as file trees: what the kernel of such a machine shows under /proc and /sys, as far as the probes look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypermesh_agent.readings import Tree

Files = dict[str, str]
LINK = "-> "
"""Content that begins so is the target of a symbolic link."""


def plant(root: Path, *parts: Mapping[str, str]) -> Tree:
    """Writes the files (later parts win) below `root`; a path that ends in / is an empty directory."""
    for path, content in {path: content for part in parts for path, content in part.items()}.items():
        target = root / path.lstrip("/")
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith(LINK):
            target.symlink_to(content.removeprefix(LINK))
        else:
            target.write_text(content)
    return Tree(root)


def meminfo(total_kb: int, **extra: int) -> Files:
    fields = {"MemTotal": total_kb, "MemFree": total_kb // 3, "MemAvailable": total_kb // 2, **extra}
    lines = [f"{name}:{value:>15} kB" for name, value in fields.items()]
    lines += ["HugePages_Total:       0", "Hugepagesize:       2048 kB", "DirectMap4k:      123 kB"]
    return {"/proc/meminfo": "\n".join(lines) + "\n"}


def node_memory(number: int, total_kb: int, huge: Mapping[int, tuple[int, int]] | None = None) -> Files:
    """A NUMA node's memory; huge: page size in kB -> (pages, free pages)."""
    base = f"/sys/devices/system/node/node{number}"
    text = f"Node {number} MemTotal:       {total_kb} kB\nNode {number} MemFree:   {total_kb // 4} kB\n"
    text += f"Node {number} HugePages_Total:     0\n"
    files = {f"{base}/meminfo": text}
    for size, (count, free) in (huge or {}).items():
        files[f"{base}/hugepages/hugepages-{size}kB/nr_hugepages"] = f"{count}\n"
        files[f"{base}/hugepages/hugepages-{size}kB/free_hugepages"] = f"{free}\n"
    return files


def x86_cpus(nodes: Mapping[int, str], siblings: int, model: str, *, cpufreq: bool) -> Files:
    """`nodes`: NUMA node -> CPU list; every node is a socket; with 2 siblings, CPU n pairs with n + half."""
    from hypermesh_agent.readings import cpu_list, cpu_list_text

    everyone = sorted(cpu for text in nodes.values() for cpu in cpu_list(text))
    files = {"/sys/devices/system/cpu/online": cpu_list_text(tuple(everyone)) + "\n"}
    blocks = []
    for node, text in nodes.items():
        files[f"/sys/devices/system/node/node{node}/cpulist"] = text + "\n"
        for cpu in cpu_list(text):
            base = f"/sys/devices/system/cpu/cpu{cpu}"
            core = cpu % (len(everyone) // siblings)
            pair = cpu_list_text(tuple(other for other in everyone if other % (len(everyone) // siblings) == core))
            files[f"{base}/topology/physical_package_id"] = f"{node}\n"
            files[f"{base}/topology/core_id"] = f"{core}\n"
            files[f"{base}/topology/core_cpus_list"] = f"{pair}\n"
            if cpufreq:
                files[f"{base}/cpufreq/cpuinfo_min_freq"] = "800000\n"
                files[f"{base}/cpufreq/cpuinfo_max_freq"] = "3900000\n"
                files[f"{base}/cpufreq/scaling_cur_freq"] = f"{2_000_000 + cpu * 1000}\n"
                files[f"{base}/cpufreq/scaling_governor"] = "performance\n"
            blocks.append(
                f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {model}\ncpu MHz\t\t: 2100.123\n"
                f"physical id\t: {node}\nflags\t\t: fpu vme avx2 avx512f sse2\n"
            )
    files["/proc/cpuinfo"] = "\n".join(blocks) + "\n"
    return files


def two_sockets() -> Files:
    """Two sockets, 8 threads each, 192 GiB, huge pages on the second node."""
    return {
        **x86_cpus({0: "0-3,8-11", 1: "4-7,12-15"}, 2, "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", cpufreq=True),
        **meminfo(201_326_592, SwapTotal=8_388_608, SwapFree=8_000_000),
        **node_memory(0, 100_663_296),
        **node_memory(1, 100_663_296, {1_048_576: (8, 6), 2048: (0, 0)}),
        "/proc/1/cgroup": "0::/init.scope\n",
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    }


def hybrid_laptop() -> Files:
    """6 performance cores with two threads, 8 efficiency cores; no NUMA directory; no cgroup limits."""
    files = {
        "/sys/devices/system/cpu/online": "0-19\n",
        "/sys/devices/cpu_core/cpus": "0-11\n",
        "/sys/devices/cpu_atom/cpus": "12-19\n",
        **meminfo(32_000_000),
    }
    blocks = []
    for cpu in range(20):
        pair = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" if cpu < 12 else str(cpu)
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = pair + "\n"
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = "0\n"
        files[f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq"] = "4800000\n" if cpu < 12 else "3600000\n"
        blocks.append(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: 12th Gen Intel(R) Core(TM) i7-12800H\n"
        )
    files["/proc/cpuinfo"] = "\n".join(blocks)
    return files


def arm_with_far_memory() -> Files:
    """arm64: no model name, no cpufreq; node 1 is a memory expander without CPUs."""
    block = "processor\t: {}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    return {
        "/proc/cpuinfo": "\n".join(block.format(cpu) for cpu in range(4)) + "\nHardware\t: board\n",
        "/sys/devices/system/cpu/online": "0-3\n",
        "/sys/devices/system/node/node0/cpulist": "0-3\n",
        "/sys/devices/system/node/node1/cpulist": "\n",
        **meminfo(40_000_000),
        **node_memory(0, 8_000_000),
        **node_memory(1, 32_000_000),
    }


def disk(name: str, gib: int, place: str, **attributes: str) -> Files:
    """A whole disk; `place` below /sys/devices; attributes: file (with __ for /) -> content."""
    device = f"/sys/devices/{place}/block/{name}"
    major = sum(map(ord, name))  # unique enough, and stable
    files = {
        f"/sys/block/{name}": f"{LINK}{_up(f'/sys/block/{name}')}{device.lstrip('/')}",
        f"{device}/size": f"{gib * 2097152}\n",
        f"{device}/dev": f"{major}:0\n",
        f"{device}/ro": "0\n",
        f"{device}/removable": "0\n",
        f"{device}/queue/rotational": "0\n",
        f"{device}/slaves/": "",
        f"{device}/holders/": "",
        f"/sys/dev/block/{major}:0": f"{LINK}{_up(f'/sys/dev/block/{major}:0')}{device.lstrip('/')}",
    }
    for key, value in attributes.items():
        files[f"{device}/{key.replace('__', '/')}"] = f"{value}\n"
    return files


def partition(parent: str, place: str, number: int, gib: int, separator: str = "") -> Files:
    name = f"{parent}{separator}{number}"
    device = f"/sys/devices/{place}/block/{parent}/{name}"
    major = sum(map(ord, parent))
    dev = f"{major}:{number}"
    return {
        f"{device}/partition": f"{number}\n",
        f"{device}/size": f"{gib * 2097152}\n",
        f"{device}/dev": f"{dev}\n",
        f"{device}/holders/": "",
        f"/sys/dev/block/{dev}": f"{LINK}{_up(f'/sys/dev/block/{dev}')}{device.lstrip('/')}",
    }


def stacked(name: str, gib: int, below: Mapping[str, str], **attributes: str) -> Files:
    """A device-mapper or md device on `below` (name -> sysfs directory of it)."""
    files = disk(name, gib, "virtual", **attributes)
    for other, device in below.items():
        link = f"/sys/devices/virtual/block/{name}/slaves/{other}"
        files[link] = f"{LINK}{_up(link)}{device.lstrip('/')}"
        back = f"{device}/holders/{name}"
        files[back] = f"{LINK}{_up(back)}sys/devices/virtual/block/{name}"
    return files


def _up(path: str) -> str:
    return "../" * (path.count("/") - 1)


def mountinfo(*mounts: tuple[str, str, str, str]) -> str:
    """(device, root, point, type) each."""
    lines = [
        f"{30 + index} 1 {device} {root} {point} rw,relatime shared:1 - {kind} /dev/x rw"
        for index, (device, root, point, kind) in enumerate(mounts)
    ]
    return "\n".join(lines) + "\n"


def device_number(name: str, part: int = 0) -> str:
    return f"{sum(map(ord, name))}:{part}"
