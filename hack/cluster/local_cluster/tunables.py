"""Kernel settings of the whole machine that a kubelet changes for itself: noted before, put back after."""

from __future__ import annotations

from pathlib import Path

# kubelet's setupKernelTunables (k8s.io/kubernetes/pkg/kubelet/cm/container_manager_linux.go)
CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
ROOT = Path("/proc/sys")


def read(root: Path = ROOT) -> dict[str, str]:
    """The settings as they are now; a setting this kernel lacks is left out."""
    present = (name for name in CHANGED_BY_KUBELET if (root / name).exists())
    return {name: (root / name).read_text().strip() for name in present}


def restore(settings: dict[str, str], root: Path = ROOT) -> None:
    """Puts noted settings back where they differ."""
    for name, value in settings.items():
        if (root / name).read_text().strip() != value:
            (root / name).write_text(value)
