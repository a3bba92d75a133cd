"""Parsers on whatever bytes a kernel, a driver or firmware may hand over: an answer or Unreadable, nothing else."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import machine_trees as machines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh_agent.hardware import HARDWARE_ID_LENGTH, Unreadable, hardware_id, printable
from hypermesh_agent.probes import cgroups, cpu, gpu, memory, mounts, storage
from hypermesh_agent.probes.cgroups import Limits
from hypermesh_agent.readings import cpu_list, cpu_list_text, fields, integer
from hypermesh_agent.reserves import Reserve, spread

LINES = st.text(st.sampled_from("0123456789-,:/ \tabckBNode.=\n\\max"), max_size=300) | st.text(max_size=200)


@given(LINES)
def test_line_parsers_never_raise_anything_else(text: str) -> None:
    mounts.parse_mountinfo(text)
    cgroups.parse_groups(text)
    cgroups.parse_quota(text)
    cpu.parse_cpuinfo(text)
    assert all(value >= 0 for value in memory.parse_meminfo(text).values())
    fields(text)
    integer(text)
    with contextlib.suppress(Unreadable):
        assert all(0 <= number < 8192 for number in cpu_list(text))


@given(st.sets(st.integers(0, 8191), max_size=100))
def test_cpu_lists_survive_their_text(cpus: set[int]) -> None:
    ordered = tuple(sorted(cpus))
    assert cpu_list(cpu_list_text(ordered)) == ordered


@pytest.mark.parametrize(
    ("text", "cpus"), [("", ()), ("0-3,8", (0, 1, 2, 3, 8)), ("0-7:2/4", (0, 1, 4, 5)), (" 5 \n", (5,))]
)
def test_cpu_list_forms(text: str, cpus: tuple[int, ...]) -> None:
    assert cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["3-1", "a", "1-", "0-99999", "0-7:0/0", "-1", "1:2:3"])
def test_cpu_lists_that_make_no_sense(text: str) -> None:
    with pytest.raises(Unreadable, match="CPU list"):
        cpu_list(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SECTION = st.fixed_dictionaries({}, optional=dict.fromkeys(("absent", "failed", "devices", "driver", "cuda"), JSON))


@given(JSON | st.fixed_dictionaries({"nvml": SECTION | JSON, "opencl": SECTION | JSON}))
def test_gpu_answers_of_any_form(document: object) -> None:
    with contextlib.suppress(Unreadable):
        gpu.parse(json.dumps(document))


@given(st.text(max_size=400))
def test_gpu_answers_that_are_no_json(text: str) -> None:
    with contextlib.suppress(Unreadable):
        gpu.parse(text)


@given(st.lists(st.text(max_size=200), min_size=1, max_size=3), st.lists(st.text(max_size=200), min_size=1, max_size=3))
def test_hardware_ids_are_printable_bounded_and_distinct(first: list[str], second: list[str]) -> None:
    ids = [hardware_id(*parts) for parts in (first, second)]
    assert all(text.isascii() and len(text) <= HARDWARE_ID_LENGTH for text in ids)
    same = ":".join(part.strip() for part in first) == ":".join(part.strip() for part in second)
    assert (ids[0] == ids[1]) == same


@given(st.text(max_size=600), st.integers(1, 300))
def test_printable_is_one_line_within_its_length(text: str, length: int) -> None:
    shown = printable(text, length)
    assert len(shown) <= length
    assert shown.isprintable() or shown == ""


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**12), max_size=10))
def test_spread_loses_nothing(total: int, weights: list[int]) -> None:
    parts = spread(total, weights)
    assert len(parts) == len(weights)
    assert sum(parts) == (total if weights else 0)
    assert all(part >= 0 for part in parts)


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 100))
def test_a_reserve_is_never_more_than_there_is(whole: int, amount: int, percent: int) -> None:
    assert 0 <= Reserve(amount, percent).of(whole) <= whole


ATTRIBUTES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/1/cgroup",
    "/proc/1/mountinfo",
    "/proc/swaps",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/node/node0/cpulist",
    "/sys/devices/system/node/node0/meminfo",
    "/sys/devices/system/cpu/cpu0/topology/core_cpus_list",
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/cpuset.cpus.effective",
    "/sys/block/sda/size",
    "/sys/block/sda/dev",
    "/sys/block/sda/wwid",
    "/sys/block/sda/removable",
    "/sys/block/sda/sda1/partition",
    "/sys/block/sda/sda1/size",
    "/sys/block/loop7/loop/backing_file",
    "/sys/block/loop7/size",
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(ATTRIBUTES), LINES | st.integers(0, 10**20).map(str), max_size=len(ATTRIBUTES)))
def test_whole_probes_on_machines_of_nonsense(files: dict[str, str]) -> None:
    written = {path: text.encode("utf-8", "replace").decode() for path, text in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, text in written.items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_text(text)
        tree = machines.plant(root)
        for probe in (cpu.probe, memory.probe):
            with contextlib.suppress(Unreadable):
                for item in probe(tree, "m", cgroups.read(tree)):
                    assert 0 <= item.capacity <= item.size
        disks = storage.probe(tree, {"sda": {}, "loop7": {}, "../x": {}}, mounts.read(tree))
        assert len(disks) <= 2
        assert len({disk.hardware_id for disk in disks}) == len(disks)
        assert cgroups.read(tree) is not Limits
