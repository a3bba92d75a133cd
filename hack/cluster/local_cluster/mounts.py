"""A machine's own view of files: the host's system underneath, everything a machine writes on top, thrown away with it.

    /                    overlay: lower = the host's root, upper = memory; nothing reaches the host
    /proc /sys /dev/pts /dev/shm /run    the machine's own
    /sys/fs/cgroup       the machine's cgroup namespace
    /dev                 the host's, so that devices (loop, disks, GPUs) come and go in nodes too
    /var/lib/{containerd,kubelet,hypermesh}, /var/log/pods   directories of the cluster's state, on a real disk
Foreign mounts of the host are not there at all, and the root is shared so that Bidirectional volumes work.
All of it lives in the machine's mount namespace: it is gone when the machine's first process is.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_cluster import cgroups

MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
MNT_DETACH = 2
SECURE = MS_NOSUID | MS_NODEV | MS_NOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """unshare(2); Python has it from 3.12 only."""
    if _libc.unshare(flags) != 0:
        _raise("unshare")


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); makes the target directory when it is missing."""
    if not target.exists():
        target.mkdir(parents=True)
    arguments = [text.encode() or None for text in (source, str(target), kind)]
    if _libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None) != 0:
        _raise(f"mount {kind or 'bind'} {source} on {target}")


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


def bind(source: Path, target: Path, *, recursive: bool = False) -> None:
    """Shows `source` at `target` too."""
    mount(str(source), target, "", MS_BIND | (MS_REC if recursive else 0))


def detach_from_host() -> None:
    """From here on, mounts of this namespace stay in it."""
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def own_proc() -> None:
    """A /proc of this pid namespace, over the host's."""
    mount("proc", Path("/proc"), "proc", SECURE)


def enter_root(
    scratch: Path,
    binds: Sequence[tuple[str, str]],
    files: Mapping[str, str],
    visible: Sequence[str],
    masks: Mapping[str, str],
) -> None:
    """Builds the machine's root below `scratch` (an existing directory) and makes it this namespace's root.

    `binds` are (host path, node path); `files` node path -> text; `visible` host paths that must stay readable at
    the same place even if they lie on another file system than the host's root; `masks` are files of /proc/sys that
    show a given text instead, so that a daemon which wants that value finds it and leaves the host's alone.
    """
    mount("tmpfs", scratch, "tmpfs", MS_NODEV | MS_NOSUID, "mode=0755")
    upper, work, root, shown = (scratch / part for part in ("upper", "work", "root", "masks"))
    for directory in (upper, work, root, shown):
        directory.mkdir()
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    _kernel_file_systems(root)
    _cgroup_file_systems(root)
    for path in visible:
        if Path(path).stat().st_dev != Path("/").stat().st_dev:
            bind(Path(path), root / path.lstrip("/"), recursive=True)
    for source, target in binds:
        bind(Path(source), root / target.lstrip("/"))
    for name, text in files.items():
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
    for number, (name, text) in enumerate(masks.items()):
        if (root / name.lstrip("/")).exists():
            (shown / str(number)).write_text(text)
            bind(shown / str(number), root / name.lstrip("/"))
    _pivot(root)
    mount("none", Path("/"), "", MS_REC | MS_SHARED)


def _kernel_file_systems(root: Path) -> None:
    mount("proc", root / "proc", "proc", SECURE)
    mount("sysfs", root / "sys", "sysfs", SECURE)
    bind(Path("/dev"), root / "dev")
    mount("devpts", root / "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    if Path("/run/udev").is_dir():
        bind(Path("/run/udev"), root / "run/udev")
    (root / "run/lock").mkdir(mode=0o1777)


def _cgroup_file_systems(root: Path) -> None:
    """The same hierarchies at the same places; mounted from inside the namespace they show its subtree only."""
    mounted = cgroups.mounted()
    if cgroups.MOUNTS not in {hierarchy.path for hierarchy in mounted}:
        mount("tmpfs", root / "sys/fs/cgroup", "tmpfs", SECURE, "mode=0755")
    for hierarchy in mounted:
        kind = "cgroup" if hierarchy.version == 1 else "cgroup2"
        mount(kind, root / str(hierarchy.path).lstrip("/"), kind, SECURE, hierarchy.options)
    for link in (path for path in cgroups.MOUNTS.iterdir() if path.is_symlink()):
        (root / str(link).lstrip("/")).symlink_to(link.readlink())


def _pivot(root: Path) -> None:
    """Makes `root` the root of every process of this namespace and drops the old one."""
    old = root / ".host"
    old.mkdir()
    subprocess.run(["pivot_root", str(root), str(old)], check=True)
    os.chdir("/")
    if _libc.umount2(b"/.host", MNT_DETACH) != 0:
        _raise("umount /.host")
    Path("/.host").rmdir()
