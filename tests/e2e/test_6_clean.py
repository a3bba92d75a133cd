"""`make demo-clean` leaves nothing: no process, namespace, mount, cgroup, link, route or table of the cluster."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .support import ROOT, run


def snapshot() -> dict[str, set[str]]:
    """What the kernel shows that a cluster could leave behind."""

    def lines(*command: str) -> set[str]:
        return set(subprocess.run(command, text=True, capture_output=True, check=False).stdout.splitlines())

    groups = {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "hypermesh" in folder or "kube" in folder}
    return {
        "links": {line.split(":")[1].strip() for line in lines("ip", "-o", "link")},
        "routes": {line for line in lines("ip", "-6", "route") if line.startswith("fd")},
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if str(ROOT / "build") in line},
        "cgroups": groups,
        "tables": lines("nft", "list", "tables"),
        "processes": {
            line
            for line in lines("ps", "-eo", "args")
            if (str(ROOT / "build") in line or line.startswith("hypermesh-"))
            and "/pytest-" not in line  # of another test that runs beside this one
        },
    }


def test_nothing_is_left() -> None:
    run(["make", "demo-clean"], timeout=300)
    before = snapshot()
    run(["make", "demo"], timeout=1200)
    during = snapshot()
    assert during["processes"] > before["processes"]
    assert during["links"] > before["links"]
    assert during["routes"] > before["routes"]
    run(["make", "demo-clean"], timeout=300)
    after = snapshot()
    for kind, found in after.items():
        assert found <= before[kind], f"{kind} are left: {found - before[kind]}"
