"""Memory pools: true totals, huge pages set aside, limits, nodes without CPUs."""

from __future__ import annotations

from pathlib import Path

import machine_trees as machines
import pytest

from hypermesh_agent.hardware import Unreadable
from hypermesh_agent.probes import memory
from hypermesh_agent.probes.cgroups import Limits
from hypermesh_agent.reserves import Reserve

GIB = 1 << 30


def test_two_nodes_share_the_machines_total(tmp_path: Path) -> None:
    first, second = memory.probe(machines.plant(tmp_path, machines.two_sockets()), "m", Limits())
    assert first.size + second.size == 201_326_592 * 1024
    assert first.capacity == first.size == 96 * GIB
    assert first.detail["total"] == "96Gi"
    assert second.capacity == 88 * GIB  # eight 1 GiB pages are set aside
    assert second.detail["hugePages"] == [{"size": "1Gi", "total": 8}]
    assert second.readings["hugePages"] == [{"size": "1Gi", "total": 8, "free": 6}]
    assert second.detail["reserved"] == "8Gi"
    assert first.detail["swapTotal"] == "8Gi"


def test_reserve_is_spread_over_the_nodes(tmp_path: Path) -> None:
    pools = memory.probe(machines.plant(tmp_path, machines.two_sockets()), "m", Limits(), Reserve(amount=2 * GIB))
    assert [pool.detail["reserved"] for pool in pools] == ["1Gi", "9Gi"]
    assert sum(pool.size - pool.capacity for pool in pools) == 10 * GIB


def test_node_totals_of_a_ballooned_machine_do_not_move_the_size(tmp_path: Path) -> None:
    files = {**machines.meminfo(24_000_000), **machines.node_memory(0, 11_000_000)}
    files |= machines.x86_cpus({0: "0-1"}, 1, "AMD EPYC", cpufreq=False)
    (pool,) = memory.probe(machines.plant(tmp_path, files), "m", Limits())
    assert pool.size == 24_000_000 * 1024


def test_memory_without_cpus_is_a_pool(tmp_path: Path) -> None:
    near, far = memory.probe(machines.plant(tmp_path, machines.arm_with_far_memory()), "m", Limits())
    assert near.size * 4 == far.size
    assert far.hardware_id == "m:numa1"


def test_control_group_limit_is_the_size(tmp_path: Path) -> None:
    tree = machines.plant(tmp_path, machines.hybrid_laptop())
    (pool,) = memory.probe(tree, "m", Limits(memory=4 * GIB), Reserve(percent=25))
    assert (pool.size, pool.capacity) == (4 * GIB, 3 * GIB)
    assert pool.detail["cgroupLimit"] == "4Gi"


def test_reserve_above_the_machine_gives_nothing(tmp_path: Path) -> None:
    (pool,) = memory.probe(machines.plant(tmp_path, machines.hybrid_laptop()), "m", Limits(), Reserve(amount=99 << 40))
    assert pool.capacity == 0


def test_without_proc_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="mount the machine's /proc"):
        memory.probe(machines.plant(tmp_path, {"/sys/devices/system/cpu/online": "0"}), "m", Limits())
