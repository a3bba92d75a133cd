"""CPU pools of machines that differ: sockets, hybrid cores, missing frequencies, limits in force."""

from __future__ import annotations

from pathlib import Path

import machine_trees as machines
import pytest

from hypermesh_agent.hardware import Unreadable
from hypermesh_agent.probes import cgroups, cpu, numa
from hypermesh_agent.probes.cgroups import Limits
from hypermesh_agent.reserves import Reserve


def test_two_sockets_are_two_pools_with_half_the_threads_as_cores(tmp_path: Path) -> None:
    first, second = cpu.probe(machines.plant(tmp_path, machines.two_sockets()), "m", Limits())
    assert (first.hardware_id, second.hardware_id) == ("m:numa0", "m:numa1")
    assert first.size == first.capacity == 8000
    assert first.detail["threads"] == 8
    assert first.detail["cores"] == 4
    assert first.detail["sockets"] == 1
    assert second.detail["cpus"] == "4-7,12-15"
    assert first.detail["frequency"] == {"minMHz": 800, "maxMHz": 3900}
    assert first.detail["governor"] == "performance"
    assert first.detail["flags"] == ["avx2", "avx512f", "fpu", "sse2", "vme"]
    assert first.readings == {"frequency": {"currentMHz": 2005}}  # mean of CPUs 0-3 and 8-11


def test_hybrid_processor_without_numa_is_one_pool(tmp_path: Path) -> None:
    (pool,) = cpu.probe(machines.plant(tmp_path, machines.hybrid_laptop()), "m", Limits())
    assert pool.size == 20000
    assert pool.detail["cores"] == 14
    assert pool.attributes == {"performanceThreads": "12", "efficiencyThreads": "8"}
    assert pool.detail["frequency"] == {"maxMHz": 4800}


def test_without_cpufreq_and_model_name(tmp_path: Path) -> None:
    (pool,) = cpu.probe(machines.plant(tmp_path, machines.arm_with_far_memory()), "m", Limits())
    assert pool.detail["model"] == "implementer 0x41 part 0xd40"
    assert "frequency" not in pool.detail
    assert "governor" not in pool.detail
    assert pool.readings == {}
    assert pool.detail["cores"] == 4


def test_mhz_of_cpuinfo_stands_in_for_cpufreq(tmp_path: Path) -> None:
    files = machines.x86_cpus({0: "0-1"}, 1, "QEMU Virtual CPU", cpufreq=False)
    (pool,) = cpu.probe(machines.plant(tmp_path, files), "m", Limits())
    assert pool.readings == {"frequency": {"currentMHz": 2100}}


def test_cpuset_takes_a_pool_away_and_quota_is_spread(tmp_path: Path) -> None:
    tree = machines.plant(tmp_path, machines.two_sockets())
    (pool,) = cpu.probe(tree, "m", Limits(cpus=frozenset({0, 1, 2})))
    assert pool.size == 3000
    assert pool.detail["cpus"] == "0-2"
    first, second = cpu.probe(tree, "m", Limits(millicores=5001))
    assert (first.size, second.size) == (2501, 2500)
    assert first.detail["cgroupLimit"] == "5001m"


def test_reserve_lowers_what_is_given_not_what_there_is(tmp_path: Path) -> None:
    pools = cpu.probe(machines.plant(tmp_path, machines.two_sockets()), "m", Limits(), Reserve(amount=1000))
    assert [pool.size for pool in pools] == [8000, 8000]
    assert sum(pool.capacity for pool in pools) == 15000


def test_offline_cpus_do_not_count(tmp_path: Path) -> None:
    files = machines.two_sockets() | {"/sys/devices/system/cpu/online": "0-3\n"}
    (pool,) = cpu.probe(machines.plant(tmp_path, files), "m", Limits())
    assert pool.size == 4000


def test_nothing_mounted_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="mount the machine's /sys and /proc"):
        numa.read(machines.plant(tmp_path))


class TestCgroups:
    def test_v2_takes_the_tightest_of_all_levels(self, tmp_path: Path) -> None:
        tree = machines.plant(
            tmp_path,
            {
                "/proc/1/cgroup": "0::/machine.slice/node1\n",
                "/sys/fs/cgroup/cgroup.controllers": "cpu memory cpuset\n",
                "/sys/fs/cgroup/machine.slice/cpu.max": "150000 100000\n",
                "/sys/fs/cgroup/machine.slice/memory.max": "max\n",
                "/sys/fs/cgroup/machine.slice/node1/cpu.max": "max 100000\n",
                "/sys/fs/cgroup/machine.slice/node1/memory.max": "1073741824\n",
                "/sys/fs/cgroup/machine.slice/node1/cpuset.cpus.effective": "0-1\n",
            },
        )
        assert cgroups.read(tree) == Limits(frozenset({0, 1}), 1500, 1 << 30)

    def test_v1_with_joined_controllers(self, tmp_path: Path) -> None:
        tree = machines.plant(
            tmp_path,
            {
                "/proc/1/cgroup": "4:memory:/vps\n3:cpuset:/vps\n2:cpu,cpuacct:/vps\n1:name=systemd:/\n0::/\n",
                "/sys/fs/cgroup/cpu,cpuacct/vps/cpu.cfs_quota_us": "250000\n",
                "/sys/fs/cgroup/cpu,cpuacct/vps/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/memory/vps/memory.limit_in_bytes": "2147483648\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "/sys/fs/cgroup/cpuset/vps/cpuset.cpus": "1-3\n",
            },
        )
        assert cgroups.read(tree) == Limits(frozenset({1, 2, 3}), 2500, 2 << 30)

    def test_unlimited_machine_has_no_limits(self, tmp_path: Path) -> None:
        assert cgroups.read(machines.plant(tmp_path, machines.two_sockets())) == Limits()

    def test_group_above_the_namespace_counts_what_is_visible(self) -> None:
        assert cgroups.parse_groups("0::/../../init.scope\n").unified == "/init.scope"
