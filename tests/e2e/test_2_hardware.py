"""The cluster's Assets are this machine's hardware, compared with /proc, /sys and lsblk read by the test itself."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from .support import Mesh, amount, is_true, run


def only(mesh: Mesh, kind: str) -> list[dict[str, object]]:
    return [asset for asset in mesh.objects("assets") if asset["spec"]["type"] == kind]


def total(mesh: Mesh, kind: str, field: str = "capacity") -> int:
    return sum(amount(kind, asset["status"][field]) for asset in only(mesh, kind))  # type: ignore[index, arg-type]


def test_cpu_memory_and_storage_are_listed_and_ready(mesh: Mesh) -> None:
    for kind in ("cpu", "memory", "storage"):
        assert [asset for asset in only(mesh, kind) if is_true(asset, "Ready")], f"no {kind} asset is Ready"


def test_cpu_capacity_is_what_the_scheduler_may_use(mesh: Mesh) -> None:
    assert total(mesh, "cpu") == 1000 * len(os.sched_getaffinity(0))


def test_memory_capacity_is_below_the_machines_and_close_to_it(mesh: Mesh) -> None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    machine = int(found[1]) * 1024
    reserve = 2 << 30
    assert machine - reserve - (64 << 20) <= total(mesh, "memory") <= machine


def test_storage_lists_the_disks_that_lsblk_lists(mesh: Mesh) -> None:
    listed = json.loads(run(["lsblk", "--json", "--bytes", "--nodeps", "-o", "NAME,SIZE,TYPE"]).stdout)
    disks = {
        item["name"]: int(item["size"]) for item in listed["blockdevices"] if item["type"] == "disk" and item["size"]
    }
    disks = {name: size for name, size in disks.items() if not name.startswith(("ram", "zram"))}
    shown = json.dumps(only(mesh, "storage"))
    for name, size in disks.items():
        assert f'"{name}"' in shown or f"/dev/{name}" in shown or str(size) in shown, (
            f"disk {name} is not among the Assets"
        )


def test_no_gpu_is_invented(mesh: Mesh) -> None:
    if Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists():
        assert only(mesh, "gpu")
    else:
        assert not [asset for asset in only(mesh, "gpu") if asset["spec"].get("hardwareID", "").startswith("GPU-")]  # type: ignore[attr-defined]
