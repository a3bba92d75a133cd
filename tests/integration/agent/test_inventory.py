"""This machine's inventory, compared with /proc, /sys and the util-linux tools, which read it in their own way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import loop_devices as loops
import pytest

from hypermesh.quantities import parse

NO_RESERVE = ["--reserved-cpu", "0", "--reserved-memory", "0", "--reserved-storage", "0"]


def probe(*flags: str) -> dict[str, Any]:
    """`hypermesh-agent probe -o json`, without a cluster to be found."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "HYPERMESH"))}
    command = [sys.executable, "-P", "-m", "hypermesh_agent.main", "probe", "-o", "json", *flags]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=120)
    return dict(json.loads(result.stdout))


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def only(inventory: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in inventory["hardware"] if item["type"] == kind]


@pytest.fixture(scope="module")
def inventory() -> dict[str, Any]:
    return probe(*NO_RESERVE, "--pool", "/tmp")


def test_every_probe_works_here(inventory: dict[str, Any]) -> None:
    assert inventory["failures"] == {}


def test_cpus_are_those_that_the_first_process_may_use(inventory: dict[str, Any]) -> None:
    pools = only(inventory, "cpu")
    usable = len(os.sched_getaffinity(1))
    limits = [pool["detail"]["cgroupLimit"] for pool in pools if "cgroupLimit" in pool["detail"]]
    expected = min([usable * 1000, *(parse("cores", limit) for limit in limits)])
    assert sum(pool["capacity"] for pool in pools) == expected
    assert sum(pool["detail"]["threads"] for pool in pools) == usable


def test_cpu_details_are_lscpus(inventory: dict[str, Any]) -> None:
    listed = {}
    for line in run("lscpu").splitlines():
        name, _, value = line.partition(":")
        listed[name.strip()] = value.strip()
    first = only(inventory, "cpu")[0]["detail"]
    assert first["model"] == listed["Model name"]
    assert first["vendor"] == listed["Vendor ID"]
    assert first["architecture"] == listed["Architecture"]
    assert first["flags"] == sorted(set(listed["Flags"].split()))
    sockets = int(listed["Socket(s)"])
    cores = sockets * int(listed["Core(s) per socket"])
    if len(only(inventory, "cpu")) == 1:
        assert (first["sockets"], first["cores"]) == (sockets, cores)
    assert len(only(inventory, "cpu")) == int(listed["NUMA node(s)"])


def test_memory_is_what_the_kernel_manages(inventory: dict[str, Any]) -> None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found is not None
    pools = only(inventory, "memory")
    assert sum(pool["size"] for pool in pools) == int(found[1]) * 1024
    assert sum(parse("memory", pool["detail"]["total"]) for pool in pools) == int(found[1]) * 1024


def test_the_reserve_is_kept_back() -> None:
    pools = only(probe("--reserved-memory", "1Gi", "--reserved-cpu", "500m"), "memory")
    assert sum(pool["size"] - pool["capacity"] for pool in pools) == 1 << 30


def block_devices() -> list[dict[str, Any]]:
    columns = "NAME,SIZE,TYPE,RO,MODEL,SERIAL,ROTA,MOUNTPOINTS,PKNAME"
    return list(json.loads(run("lsblk", "--json", "--bytes", "--all", "--list", "-o", columns))["blockdevices"])


def whole_mounts() -> set[str]:
    """Mount points of whole file systems by findmnt: no bind mounts of a directory in them."""
    listed = json.loads(run("findmnt", "--json", "--list", "-o", "TARGET,FSROOT"))["filesystems"]
    return {item["target"] for item in listed if item["fsroot"] == "/"}


def expected_disks() -> dict[str, dict[str, Any]]:
    """Whole disks by lsblk's own judgement: no memory under another name, nothing empty, no read-only loop."""
    disks = {}
    for device in block_devices():
        memory = device["name"].startswith(("ram", "zram"))
        loop = device["type"] == "loop" and not device["ro"]
        if device["size"] and not memory and (device["type"] == "disk" or loop):
            disks[f"/dev/{device['name']}"] = device
    return disks


def undisturbed(*flags: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """An inventory, and lsblk's disks before and after it: others on this machine may attach devices meanwhile."""
    for _ in range(10):
        before = expected_disks()
        found = probe(*flags)
        if expected_disks() == before:
            return found, before
    raise AssertionError("the machine's disks change all the time: lsblk never said the same twice")


def test_disks_are_lsblks() -> None:
    inventory, expected = undisturbed()
    disks = {
        item["detail"]["devicePath"]: item for item in only(inventory, "storage") if "devicePath" in item["detail"]
    }
    assert {path: item["size"] for path, item in disks.items()} == {path: it["size"] for path, it in expected.items()}
    whole = whole_mounts()
    for path, item in disks.items():
        assert set(item["detail"]["mounts"]) >= {point for point in expected[path]["mountpoints"] if point in whole}
        if serial := (expected[path]["serial"] or "").strip():  # lsblk knows none where udevd does not run
            assert item["detail"]["serial"] == serial


@pytest.mark.root
def test_partitions_are_lsblks(tmp_path: Path) -> None:
    """Told to the kernel one by one (addpart): a kernel may be built without any partition table it can read."""
    path = loops.image(tmp_path, "parts.img", 64)
    with loops.attached(path, "--partscan") as device:
        parent = device.removeprefix("/dev/")
        run("addpart", device, "1", "2048", str(16 * 2048))
        run("addpart", device, "2", str(17 * 2048), str(24 * 2048))
        listed = {it["name"]: it["size"] for it in block_devices() if it["pkname"] == parent}
        (item,) = [item for item in only(probe(), "storage") if item["detail"].get("devicePath") == device]
        sizes = {entry["name"]: parse("storage", entry["size"]) for entry in item["detail"]["partitions"]}
        assert sizes == listed == {f"{parent}p1": 16 << 20, f"{parent}p2": 24 << 20}
        assert item["hardwareID"].startswith("loop:")


def test_the_pools_disk_gives_what_df_says(tmp_path: Path) -> None:
    """Others may write to the disk meanwhile: so between what df says before and after, give or take a step."""

    def df() -> tuple[str, int, int]:
        source, size, room = (
            run("df", "--block-size=1", "--output=source,size,avail", str(tmp_path)).splitlines()[1].split()
        )
        return source, int(size), int(room)

    source, size, before = df()
    inventory = probe(*NO_RESERVE, "--pool", str(tmp_path))
    after = df()[2]
    (giver,) = [item for item in only(inventory, "storage") if item["capacity"]]
    step = max(64 << 20, size // 256)
    assert min(before, after) - step <= giver["capacity"] <= max(before, after)
    assert giver["detail"]["poolPath"] == str(tmp_path)
    if source.startswith("/dev/"):
        assert source.startswith(giver["detail"]["devicePath"])


def test_gpus_are_nvidia_smis(inventory: dict[str, Any]) -> None:
    gpus = {item["hardwareID"]: item["size"] for item in only(inventory, "gpu") if "GPU-" in item["hardwareID"]}
    if shutil.which("nvidia-smi") is None:
        assert gpus == {}
        return
    listed = run("nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits")
    expected = {line.split(", ")[0]: int(line.split(", ")[1]) for line in listed.splitlines()}
    assert {uuid: size >> 20 for uuid, size in gpus.items()} == expected


def test_identities_stay_from_one_look_to_the_next(inventory: dict[str, Any]) -> None:
    again = probe(*NO_RESERVE, "--pool", "/tmp")
    fixed = {item["hardwareID"] for item in inventory["hardware"] if not item["hardwareID"].startswith("loop:")}
    assert fixed <= {item["hardwareID"] for item in again["hardware"]}


def test_the_table_has_a_line_for_everything() -> None:
    command = [sys.executable, "-P", "-m", "hypermesh_agent.main", "probe"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    assert lines[0].split() == ["TYPE", "SIZE", "GIVEN", "HARDWARE", "MODEL"]
    assert {line.split()[0] for line in lines[1:]} >= {"cpu", "memory"}


def test_the_agents_process_stays_small() -> None:
    """What costs tens of megabytes runs in short-lived processes: not a module of it may be loaded here."""
    code = (
        "import sys, hypermesh_agent.agent, hypermesh_agent.survey, asyncio\n"
        "asyncio.run(hypermesh_agent.survey.Survey(hypermesh_agent.survey.SurveyConfig()).run())\n"
        "heavy = {'numpy', 'chiapos', 'chiavdf', 'pynvml', 'pyopencl', 'cryptography', 'kubernetes', 'kopf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "[]"
