"""What a machine is told arrives as it was meant; its daemons start when they can and again when they die."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from local_cluster.cgroups import Hierarchy, hierarchies
from local_cluster.machine import Root, Specification, decode, encode
from local_cluster.supervisor import LONGEST_DELAY, Service, Slot, accepts

HYBRID = """\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:9 - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
34 24 0:30 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_hierarchies_of_a_hybrid_machine() -> None:
    top = Path("/sys/fs/cgroup")
    assert hierarchies(HYBRID) == [
        Hierarchy(top / "cpu,cpuacct", 1, "cpu,cpuacct"),
        Hierarchy(top / "systemd", 1, "none,name=systemd"),
        Hierarchy(top / "unified", 2, ""),
    ]


def test_the_one_hierarchy_of_a_unified_machine() -> None:
    assert hierarchies(UNIFIED) == [Hierarchy(Path("/sys/fs/cgroup"), 2, "")]


@pytest.mark.parametrize(
    "specification",
    [
        Specification("switch", "cluster/switch"),
        Specification(
            "node-1",
            "cluster/node-1",
            {"net/ipv6/conf/all/forwarding": "1"},
            Root("/scratch", (("/from", "/to"),), {"/etc/hostname": "node-1\n"}, ("/cache",), {"/proc/sys/vm/x": "1"}),
            (
                Service("a", ("/bin/a", "--flag"), "/log/a", {"PATH": "/bin"}, ("/run/a.sock",), ("::1", 6443)),
                Service("b", ("/bin/b",), "/log/b"),
            ),
        ),
    ],
)
def test_a_specification_reads_back_as_it_was(specification: Specification) -> None:
    assert decode(encode(specification)) == specification


def test_a_daemon_waits_for_its_socket_and_its_server(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
        server.bind(("::1", 0))
        address = ("::1", int(server.getsockname()[1]))
        needed = tmp_path / "socket"
        service = Service("a", ("/bin/true",), str(tmp_path / "log"), {}, (str(needed),), address)
        assert not service.startable()
        needed.touch()
        assert not accepts(*address)
        assert not service.startable()
        server.listen()
        assert service.startable()


def test_a_daemon_that_dies_at_once_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    slot = Slot(Service("a", ("/bin/true",), str(tmp_path / "log")))
    delays = []
    for _ in range(6):
        slot.start()
        os.waitpid(slot.pid, 0)
        slot.ended()
        delays.append(slot.delay)
    assert delays == sorted(delays)
    assert delays[0] < 1
    assert delays[-1] == LONGEST_DELAY
