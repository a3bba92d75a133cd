"""Storage: one Asset for each disk, and what is free to give of the disk that carries the pool.

HyperMesh gives away files in the pool directory, never a raw disk: so the disk under the pool has the capacity that the
pool's file system has room for, and every other disk is listed with capacity 0 until a pool lies on it. A pool on
several disks (LVM, RAID) or on none the kernel knows (network, overlay) is an Asset of its own, of kind Pool.
Unit: bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hypermesh.quantities import render

from ..hardware import Hardware, Json, Kind, hardware_id, printable
from ..readings import Tree
from ..reserves import NOTHING, Reserve
from .blocks import SECTOR, Disk, disks
from .mounts import Mount
from .pool import Pool

PARTITIONS: Final = 128
MOUNTS: Final = 64
DEPTH: Final = 8
"""Layers of stacked devices that are followed: partition, RAID, LUKS, LVM and some to spare."""


@dataclass(frozen=True, slots=True)
class Users:
    """What uses a device: mount points of it and of all that is stacked on it."""

    mounts: tuple[Mount, ...]
    holders: tuple[str, ...]
    swap: bool

    @property
    def busy(self) -> bool:
        return bool(self.mounts or self.holders or self.swap)


def probe(
    tree: Tree,
    devices: Mapping[str, Mapping[str, str]],
    mounts: tuple[Mount, ...],
    pool: Pool | None = None,
    reserve: Reserve = NOTHING,
    held: int = 0,
) -> tuple[Hardware, ...]:
    """One Hardware for each disk (devices: kernel name -> udev properties), and one for a pool of its own.

    held: bytes of the pool given so far, 0 at first.
    """
    found = disks(tree, devices)
    carriers = underlying(tree, pool.device) if pool is not None else frozenset()
    by_device = _by_device(mounts)
    swaps = frozenset(line.split()[0] for line in (tree.text("/proc/swaps") or "").splitlines()[1:] if line.split())
    given = pool.capacity(reserve, held) if pool is not None else 0
    carrier = next((disk for disk in found if carriers and carriers <= set(disk.paths)), None)
    hardware = [
        _hardware(tree, disk, by_device, swaps, *((pool, given) if disk is carrier else (None, 0))) for disk in found
    ]
    if pool is not None and carrier is None:
        hardware.append(_pool_alone(tree, pool, mounts, carriers, given))
    return tuple(hardware)


def underlying(tree: Tree, device: str) -> frozenset[str]:
    """Kernel names of the whole disks below `major:minor`; empty when the kernel knows none."""
    real = tree.real(f"/sys/dev/block/{device}")
    return frozenset(_below(tree, real, DEPTH)) if real else frozenset()


def _below(tree: Tree, path: str, depth: int) -> set[str]:
    if depth == 0:
        return set()
    if tree.exists(f"{path}/partition"):
        return _below(tree, path.rpartition("/")[0], depth - 1)
    slaves = [real for name in tree.names(f"{path}/slaves") if (real := tree.real(f"{path}/slaves/{name}"))]
    if not slaves:
        return {path.rpartition("/")[2]}
    return set().union(*(_below(tree, slave, depth - 1) for slave in slaves))


def _hardware(
    tree: Tree,
    disk: Disk,
    by_device: Mapping[str, tuple[Mount, ...]],
    swaps: frozenset[str],
    pool: Pool | None,
    given: int,
) -> Hardware:
    base = f"/sys/block/{disk.name}"
    own = _users(tree, base, by_device, swaps, DEPTH)
    names = [name for name in tree.names(base) if tree.exists(f"{base}/{name}/partition")][:PARTITIONS]
    parts = {name: _users(tree, f"{base}/{name}", by_device, swaps, DEPTH) for name in names}
    everything = (*own.mounts, *(mount for users in parts.values() for mount in users.mounts))
    detail: dict[str, Json] = {
        "devicePath": f"/dev/{disk.name}",
        "kind": disk.kind,
        "size": render("storage", disk.size),
        "inUse": own.busy or any(users.busy for users in parts.values()),
        "mounts": list[Json](sorted({printable(mount.point, 1024) for mount in everything})[:MOUNTS]),
        "partitions": [_partition(tree, f"{base}/{name}", name, users) for name, users in parts.items()],
    }
    texts = {"model": disk.model, "serial": disk.serial, "vendor": disk.vendor}
    detail |= {key: text for key, text in texts.items() if text}
    if own.mounts:
        detail["fileSystem"] = own.mounts[0].file_system
    if pool is not None:
        detail["poolPath"] = pool.path
    attributes = {"readOnly": "true"} if disk.read_only else {}
    if disk.removable:
        attributes["removable"] = "true"
    if disk.backing_file:
        attributes["backingFile"] = printable(disk.backing_file, 1024)
    if len(disk.paths) > 1:
        attributes["paths"] = ",".join(disk.paths)
    return Hardware(
        kind=Kind.STORAGE,
        hardware_id=disk.identity,
        size=disk.size,
        capacity=min(disk.size, given),
        detail=detail,
        readings={},
        attributes=attributes,
    )


def _pool_alone(tree: Tree, pool: Pool, mounts: tuple[Mount, ...], carriers: frozenset[str], given: int) -> Hardware:
    mount = next((mount for mount in reversed(mounts) if mount.device == pool.device), None)
    base = f"/sys/dev/block/{pool.device}"
    volume = tree.text(f"{base}/dm/uuid") or tree.text(f"{base}/md/uuid") or pool.path
    detail: dict[str, Json] = {
        "kind": "Pool",
        "size": render("storage", pool.size),
        "inUse": True,
        "mounts": [printable(mount.point, 1024)] if mount else [],
        "partitions": [],
        "poolPath": pool.path,
    }
    if mount:
        detail["fileSystem"] = mount.file_system
    return Hardware(
        kind=Kind.STORAGE,
        hardware_id=hardware_id("pool", volume),
        size=pool.size,
        capacity=given,
        detail=detail,
        attributes={"disks": ",".join(sorted(carriers))} if carriers else {},
    )


def _partition(tree: Tree, base: str, name: str, users: Users) -> dict[str, Json]:
    entry: dict[str, Json] = {"name": name, "size": render("storage", (tree.integer(f"{base}/size") or 0) * SECTOR)}
    if users.mounts:
        first = min(users.mounts, key=lambda mount: (len(mount.point), mount.point))
        entry |= {"fileSystem": first.file_system, "mount": printable(first.point, 1024)}
    return entry


def _by_device(mounts: tuple[Mount, ...]) -> dict[str, tuple[Mount, ...]]:
    table: dict[str, list[Mount]] = {}
    for mount in mounts:
        table.setdefault(mount.device, []).append(mount)
    return {device: tuple(entries) for device, entries in table.items()}


def _users(
    tree: Tree, base: str, by_device: Mapping[str, tuple[Mount, ...]], swaps: frozenset[str], depth: int
) -> Users:
    """Users of the device at `base`, those of its holders (dm, md) included."""
    name = base.rpartition("/")[2]
    holders = tree.names(f"{base}/holders")
    mounts = by_device.get(tree.text(f"{base}/dev") or "", ())
    swap = f"/dev/{name}" in swaps
    for holder in holders if depth > 0 else ():
        above = _users(tree, f"/sys/block/{holder}", by_device, swaps, depth - 1)
        mounts, swap = (*mounts, *above.mounts), swap or above.swap
    return Users(mounts, tuple(holders), swap)
