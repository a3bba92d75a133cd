"""Which block devices are Assets, what identifies them, and what of them is to give."""

from __future__ import annotations

from pathlib import Path

import machine_trees as machines
import pytest
from machine_trees import device_number, disk, mountinfo, partition, plant, stacked

from hypermesh_agent.hardware import Hardware
from hypermesh_agent.probes import blocks, mounts, storage
from hypermesh_agent.probes.pool import Pool
from hypermesh_agent.reserves import NOTHING, Reserve

GIB = 1 << 30
NVME = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0"
SATA = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0"


def server() -> machines.Files:
    """NVMe with a plain and an encrypted partition, an HDD pair in RAID, and everything that is no Asset."""
    sda, sdb = SATA, SATA.replace("ata1", "ata2")
    nvme = f"/sys/devices/{NVME}/block/nvme0n1"
    return {
        **disk("nvme0n1", 1000, NVME, wwid="eui.0025385b", device__model="Samsung SSD 990", device__serial="S6Z1"),
        **partition("nvme0n1", NVME, 1, 1, "p"),
        **partition("nvme0n1", NVME, 2, 999, "p"),
        **stacked("dm-0", 999, {"nvme0n1p2": f"{nvme}/nvme0n1p2"}, dm__uuid="CRYPT-LUKS2-abc", dm__name="crypt"),
        **stacked("dm-1", 900, {"dm-0": "/sys/devices/virtual/block/dm-0"}, dm__uuid="LVM-xyz", dm__name="vg-root"),
        **disk("sda", 4000, sda, device__vendor="ATA", device__model="WDC WD40", queue__rotational="1"),
        **disk("sdb", 4000, sdb, device__vendor="ATA", device__model="WDC WD40", queue__rotational="1"),
        **stacked(
            "md0",
            8000,
            {"sda": f"/sys/devices/{sda}/block/sda", "sdb": f"/sys/devices/{sdb}/block/sdb"},
            md__level="raid0",
            md__uuid="ab:cd",
        ),
        **disk("loop0", 5, "virtual", loop__backing_file="/srv/images/a b.img"),
        **disk("loop1", 0, "virtual"),
        **disk("loop2", 1, "virtual", loop__backing_file="/var/lib/snapd/snaps/core.snap", ro="1"),
        **disk("loop3", 1, "virtual"),
        **disk("zram0", 8, "virtual"),
        **disk("ram0", 1, "virtual"),
        **disk("sr0", 4, SATA.replace("ata1", "ata3"), removable="1"),
        **disk("nbd0", 0, "virtual"),
        **disk("mmcblk0", 32, "platform/mmc0/mmc0:0001", device__serial="0xdeadbeef"),
        **disk("mmcblk0boot0", 1, "platform/mmc0/mmc0:0001/boot"),
        **disk("nvme0c0n1", 1000, NVME + "/nvme0c0", hidden="1"),
        **disk("sdc", 0, "pci0000:00/usb1/card-reader", removable="1"),
        **disk("vda", 256, "pci0000:00/0000:00:02.0/virtio1", queue__rotational="1"),
        "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p1 partition 1048572 0 -2\n",
        "/proc/1/mountinfo": mountinfo(
            (device_number("dm-1"), "/", "/", "ext4"),
            (device_number("dm-1"), "/etc/hosts", "/var/lib/kubelet/pods/1/hosts", "ext4"),
            (device_number("md0"), "/", "/srv/with\\040space", "xfs"),
            ("0:22", "/", "/proc", "proc"),
        ),
    }


def names(tree_files: machines.Files) -> dict[str, dict[str, str]]:
    return {path.split("/")[3]: {} for path in tree_files if path.startswith("/sys/block/")}


def found(
    tmp_path: Path, files: machines.Files, pool: Pool | None = None, reserve: Reserve = NOTHING
) -> dict[str, Hardware]:
    tree = plant(tmp_path, files)
    hardware = storage.probe(tree, names(files), mounts.read(tree), pool, reserve)
    return {str(item.detail.get("devicePath", "pool")).removeprefix("/dev/"): item for item in hardware}


def test_only_whole_disks_with_something_in_them_are_assets(tmp_path: Path) -> None:
    assert sorted(found(tmp_path, server())) == ["loop0", "mmcblk0", "nvme0n1", "sda", "sdb", "vda"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("zram0", "memory"),
        ("ram0", "memory"),
        ("sr0", "optical"),
        ("loop1", "empty"),
        ("loop2", "read-only loop"),
        ("loop3", "without backing file"),
        ("dm-0", "stacked"),
        ("md0", "stacked"),
        ("nvme0c0n1", "memory, optical, floppy or chip"),
        ("sdc", "empty"),
        ("nvme0n1p1", "partition"),
    ],
)
def test_every_refusal_has_its_reason(tmp_path: Path, name: str, why: str) -> None:
    verdict = blocks.verdict(plant(tmp_path, server()), name)
    assert verdict is not None
    assert why in verdict


def test_kinds_sizes_and_identities(tmp_path: Path) -> None:
    disks = found(tmp_path, server())
    assert {name: item.detail["kind"] for name, item in disks.items()} == {
        "loop0": "Loop",
        "mmcblk0": "SSD",
        "nvme0n1": "NVMe",
        "sda": "HDD",
        "sdb": "HDD",
        "vda": "Virtual",
    }
    nvme = disks["nvme0n1"]
    assert (nvme.size, nvme.capacity) == (1000 * GIB, 0)
    assert nvme.hardware_id == "wwn:eui.0025385b"
    assert nvme.detail["model"] == "Samsung SSD 990"
    assert disks["sda"].hardware_id == "at:pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0"
    assert disks["vda"].hardware_id == "at:pci0000:00/0000:00:02.0/virtio1"
    assert disks["loop0"].hardware_id.startswith("loop:/srv/images/a_b.img-")


def test_use_is_seen_through_encryption_volumes_raid_and_swap(tmp_path: Path) -> None:
    disks = found(tmp_path, server())
    nvme = disks["nvme0n1"].detail
    assert nvme["mounts"] == ["/"]
    assert nvme["partitions"] == [
        {"name": "nvme0n1p1", "size": "1Gi"},
        {"name": "nvme0n1p2", "size": "999Gi", "fileSystem": "ext4", "mount": "/"},
    ]
    assert disks["sda"].detail["mounts"] == ["/srv/with space"]
    assert {name: item.detail["inUse"] for name, item in disks.items()} == {
        "loop0": False,
        "mmcblk0": False,
        "nvme0n1": True,
        "sda": True,
        "sdb": True,
        "vda": False,
    }


def pool_on(name: str, size: int = 900, available: int = 100) -> Pool:
    return Pool("/var/lib/hypermesh/pool", device_number(name), size * GIB, available * GIB, 20 * GIB)


def test_the_pools_disk_gives_what_the_file_system_has(tmp_path: Path) -> None:
    disks = found(tmp_path, server(), pool_on("dm-1"), Reserve(amount=10 * GIB))
    nvme = disks["nvme0n1"]
    assert nvme.capacity == 110 * GIB  # 100 free + 20 in regions - 10 kept
    assert nvme.size == 1000 * GIB
    assert nvme.detail["poolPath"] == "/var/lib/hypermesh/pool"
    assert all(item.capacity == 0 for name, item in disks.items() if name != "nvme0n1")


def test_a_pool_on_several_disks_is_an_asset_of_its_own(tmp_path: Path) -> None:
    disks = found(tmp_path, server(), pool_on("md0", 8000, 4000))
    assert disks["pool"].detail["kind"] == "Pool"
    assert disks["pool"].hardware_id == "pool:ab:cd"
    assert disks["pool"].attributes == {"disks": "sda,sdb"}
    assert disks["pool"].capacity == 4020 * GIB // pool_on("md0", 8000).step() * pool_on("md0", 8000).step()
    assert disks["sda"].capacity == disks["sdb"].capacity == 0


def test_a_pool_on_no_device_is_an_asset_of_its_own(tmp_path: Path) -> None:
    disks = found(tmp_path, server(), Pool("/mnt/nfs", "0:77", 50 * GIB, 40 * GIB, 0))
    assert disks["pool"].hardware_id == "pool:/mnt/nfs"
    assert disks["pool"].capacity <= 40 * GIB


def test_two_disks_with_one_serial_are_told_apart_by_their_place(tmp_path: Path) -> None:
    files = {
        **disk("sda", 10, "pci0000:00/usb1/1-1", device__serial="000000000001"),
        **disk("sdb", 10, "pci0000:00/usb1/1-2", device__serial="000000000001"),
    }
    identities = {item.hardware_id for item in found(tmp_path, files).values()}
    assert identities == {
        "serial:000000000001:pci0000:00/usb1/1-1",
        "serial:000000000001:pci0000:00/usb1/1-2",
    }


def test_paths_of_a_multipath_disk_are_one_asset(tmp_path: Path) -> None:
    first, second = "pci0000:00/fc1/sda", "pci0000:00/fc2/sdb"
    files = {
        **disk("sda", 10, first, device__wwid="naa.600"),
        **disk("sdb", 10, second, device__wwid="naa.600"),
        **stacked(
            "dm-3",
            10,
            {"sda": f"/sys/devices/{first}/block/sda", "sdb": f"/sys/devices/{second}/block/sdb"},
            dm__uuid="mpath-3600",
        ),
    }
    disks = found(tmp_path, files, pool_on("dm-3", 10, 5))
    assert list(disks) == ["sda"]
    assert disks["sda"].capacity == 10 * GIB  # what the file system has room for, never more than the disk
    assert disks["sda"].hardware_id == "wwn:naa.600"
    assert disks["sda"].attributes == {"paths": "sda,sdb"}


def test_udev_fills_in_what_sysfs_does_not_say(tmp_path: Path) -> None:
    files = disk("sdz", 10, "pci0000:00/x")
    tree = plant(tmp_path, files)
    properties = {"sdz": {"ID_WWN": "0x5000c500", "ID_MODEL": "ST4000", "ID_VENDOR": "QEMU"}}
    (item,) = storage.probe(tree, properties, ())
    assert item.hardware_id == "wwn:0x5000c500"
    assert item.detail["model"] == "ST4000"
    assert item.detail["kind"] == "Virtual"


def test_pool_capacity_moves_in_steps_and_never_below_nothing() -> None:
    pool = Pool("/p", "8:1", 1024 * GIB, 100 * GIB, 0)
    assert pool.step() == 4 * GIB
    assert pool.capacity() == 100 * GIB
    assert Pool("/p", "8:1", 1024 * GIB, 100 * GIB - 5, 0).capacity() == 96 * GIB
    assert pool.capacity(Reserve(amount=200 * GIB)) == 0
    assert pool.capacity(Reserve(percent=100)) == 0


@pytest.mark.parametrize(
    ("room", "given"), [(100, 100), (97, 100), (96, 100), (95, 92), (107, 100), (108, 108), (0, 0)]
)
def test_what_was_given_stays_while_others_write_a_little(room: int, given: int) -> None:
    pool = Pool("/p", "8:1", 1024 * GIB, room * GIB, 0)
    assert pool.capacity(held=100 * GIB) == given * GIB
