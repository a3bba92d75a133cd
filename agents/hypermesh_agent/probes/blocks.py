"""Block devices of the kernel: which of them are hardware that an Asset may stand for.

An Asset is a whole disk with something in it. Not one: partitions, RAM disks and zram (memory under another name),
optical and floppy drives, flash translation and boot partitions of chips, hidden paths of a multipath NVMe device, loop
devices without backing file or read-only ones (package images), volumes stacked on other devices (device mapper, md:
the disks below are the Assets) and anything of size zero (empty card readers, disconnected network disks).
Source: Documentation/ABI/stable/sysfs-block; enumeration and database by udev.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..hardware import hardware_id, printable
from ..readings import Tree

SECTOR: Final = 512
"""/sys/block/*/size counts 512-byte sectors whatever the device's own block size."""

_NEVER: Final = re.compile(r"(ram|zram|sr|scd|fd|mtdblock|ubiblock)\d+|mmcblk\d+(boot\d+|rpmb|gp\d+)|nvme\d+c\d+n\d+")
_VIRTUAL_NAME: Final = re.compile(r"(vd|xvd|nbd|rbd|drbd|zd|pmem)[a-z0-9]+")
_VIRTUAL_VENDOR: Final = frozenset({"qemu", "vmware", "msft", "google", "xen", "virtio", "vbox", "nutanix", "lio-org"})
_MULTIPATH: Final = "mpath-"


@dataclass(frozen=True, slots=True)
class Disk:
    """One whole device. paths: its kernel names (several behind a multipath); size in bytes; attached: stable place."""

    name: str
    kind: str
    size: int
    identity: str
    model: str
    serial: str
    vendor: str
    read_only: bool
    removable: bool
    backing_file: str
    paths: tuple[str, ...]


def disks(tree: Tree, devices: Mapping[str, Mapping[str, str]]) -> tuple[Disk, ...]:
    """The disks among `devices` (kernel name -> udev properties), by name, each with an identity of its own.

    Two disks that claim one serial (cheap bridges do) are told apart by the place they are attached at; paths of one
    multipath disk are one.
    """
    found = [disk for name in sorted(devices) if (disk := _disk(tree, name, devices[name])) is not None]
    merged: dict[tuple[str, str], Disk] = {}
    for disk in found:
        mapped = _multipath(tree, disk.name)
        key = (disk.identity, mapped or disk.name)
        known = merged.get(key)
        merged[key] = disk if known is None else replace(known, paths=(*known.paths, disk.name))
    result: list[Disk] = []
    taken: dict[str, int] = {}
    for disk in merged.values():
        taken[disk.identity] = taken.get(disk.identity, 0) + 1
    for disk in merged.values():
        identity = disk.identity
        if taken[identity] > 1:
            identity = hardware_id(identity, _place(tree, disk.name))
        result.append(replace(disk, identity=identity))
    return tuple(result)


def verdict(tree: Tree, name: str) -> str | None:
    """Why the device `name` is no Asset, or None when it is one."""
    base = f"/sys/block/{name}"
    if _NEVER.fullmatch(name):
        return "memory, optical, floppy or chip device"
    if not tree.exists(base):
        return "a partition, or gone"
    if tree.integer(f"{base}/hidden") == 1:
        return "a hidden path of a multipath device"
    if not tree.integer(f"{base}/size"):
        return "empty"
    if name.startswith("loop"):
        if not tree.text(f"{base}/loop/backing_file"):
            return "a loop device without backing file"
        if tree.integer(f"{base}/ro") == 1:
            return "a read-only loop device"
    if tree.names(f"{base}/slaves") or tree.exists(f"{base}/dm") or tree.exists(f"{base}/md"):
        return "stacked on other devices"
    return None


def _disk(tree: Tree, name: str, properties: Mapping[str, str]) -> Disk | None:
    if "/" in name or verdict(tree, name) is not None:
        return None
    base = f"/sys/block/{name}"
    serial = printable(
        tree.text(f"{base}/device/serial") or tree.text(f"{base}/serial") or properties.get("ID_SERIAL_SHORT", ""), 120
    )
    vendor = printable(tree.text(f"{base}/device/vendor") or properties.get("ID_VENDOR", ""), 120)
    model = printable(tree.text(f"{base}/device/model") or properties.get("ID_MODEL", ""))
    backing = tree.text(f"{base}/loop/backing_file") or ""
    return Disk(
        name=name,
        kind=_kind(tree, name, vendor, properties),
        size=(tree.integer(f"{base}/size") or 0) * SECTOR,
        identity=_identity(tree, name, properties, serial, model, backing),
        model=model,
        serial=serial,
        vendor="" if vendor.startswith("0x") else vendor,
        read_only=tree.integer(f"{base}/ro") == 1,
        removable=tree.integer(f"{base}/removable") == 1,
        backing_file=backing,
        paths=(name,),
    )


def _kind(tree: Tree, name: str, vendor: str, properties: Mapping[str, str]) -> str:
    """NVMe, SSD, HDD, Virtual or Loop. A hypervisor's disk is Virtual whatever it says of its rotation."""
    if name.startswith("loop"):
        return "Loop"
    known = {vendor.lower(), properties.get("ID_VENDOR", "").lower()}
    if _VIRTUAL_NAME.fullmatch(name) or known & _VIRTUAL_VENDOR:
        return "Virtual"
    if name.startswith("nvme"):
        return "NVMe"
    return "HDD" if tree.integer(f"/sys/block/{name}/queue/rotational") == 1 else "SSD"


def _identity(tree: Tree, name: str, properties: Mapping[str, str], serial: str, model: str, backing: str) -> str:
    """World-wide name, else model and serial, else the place; a loop device is its backing file and offset."""
    base = f"/sys/block/{name}"
    if backing:
        offset = tree.integer(f"{base}/loop/offset") or 0
        return hardware_id("loop", backing.removesuffix(" (deleted)"), *([str(offset)] if offset else []))
    world_wide = (
        tree.text(f"{base}/wwid") or tree.text(f"{base}/device/wwid") or properties.get("ID_WWN_WITH_EXTENSION")
    )
    if world_wide := printable(world_wide or properties.get("ID_WWN", "")):
        return hardware_id("wwn", world_wide)
    if serial:
        return hardware_id("serial", model, serial) if model else hardware_id("serial", serial)
    return hardware_id("at", _place(tree, name))


def _place(tree: Tree, name: str) -> str:
    """Where the device hangs: its sysfs path without the kernel's own name, which depends on the order."""
    real = tree.real(f"/sys/block/{name}")
    if real is None or "/virtual/" in real:
        return name
    return real.removeprefix("/sys/devices/").rpartition("/block/")[0] or name


def _multipath(tree: Tree, name: str) -> str | None:
    for holder in tree.names(f"/sys/block/{name}/holders"):
        if (tree.text(f"/sys/block/{holder}/dm/uuid") or "").startswith(_MULTIPATH):
            return holder
    return None
