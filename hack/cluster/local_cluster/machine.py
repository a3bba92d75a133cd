"""One "computer": a process that is PID 1 of its own network, mount, uts, ipc, pid and cgroup namespaces.

Killing that process is a power cut: its whole pid namespace dies with it, and its mounts and links vanish.

How it starts without ever leaving a stray behind:
    starter (in `up`)                    the new process
    writes the specification, spawns ->  joins its cgroup, unshares, forks; the parent tells the child's pid and ends
    records pid and start time           waits
    plugs in the network cable
    says "go"                       ->   mounts, starts the daemons
    dies before "go"                ->   reads end of file and ends
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_cluster import cgroups, mounts
from local_cluster.processes import Process
from local_cluster.state import ClusterError
from local_cluster.supervisor import Service, Slot, supervise

CLONE_FLAGS = 0x40000000 | 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000  # net, mount, uts, ipc, pid
CLONE_NEWCGROUP = 0x02000000
PROGRAM = Path(__file__).resolve().parent.parent
START_SECONDS = 30


@dataclass(frozen=True)
class Root:
    """The machine's own file system; see mounts.enter_root."""

    scratch: str
    binds: tuple[tuple[str, str], ...]
    files: dict[str, str]
    visible: tuple[str, ...]
    masks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Specification:
    """All a machine needs to know, written for it as JSON. One without daemons (the switch) needs no root."""

    name: str
    cgroup: str
    sysctls: dict[str, str] = field(default_factory=dict)
    root: Root | None = None
    services: tuple[Service, ...] = ()


def encode(specification: Specification) -> str:
    """The specification as JSON text."""
    return json.dumps(dataclasses.asdict(specification), indent=1)


def decode(text: str) -> Specification:
    """The specification back from JSON text."""
    body: dict[str, Any] = json.loads(text)
    root = body["root"]
    services = tuple(
        Service(
            **{
                **item,
                "command": tuple(item["command"]),
                "needs_paths": tuple(item["needs_paths"]),
                "needs_address": tuple(item["needs_address"]) if item["needs_address"] else None,
            }
        )
        for item in body["services"]
    )
    return Specification(
        name=body["name"],
        cgroup=body["cgroup"],
        sysctls=body["sysctls"],
        root=root
        and Root(
            root["scratch"],
            tuple((source, target) for source, target in root["binds"]),
            root["files"],
            tuple(root["visible"]),
            root["masks"],
        ),
        services=services,
    )


class Starting:
    """A machine that exists but waits for its network; `go` lets it run, losing this object ends it."""

    def __init__(self, specification: Specification, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "machine.json"
        path.write_text(encode(specification))
        with (directory / "machine.log").open("a") as log:
            self._starter = subprocess.Popen(
                [sys.executable, "-S", str(PROGRAM), "boot", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._starter.stdout is not None
        told = self._starter.stdout.readline()
        self._starter.wait(timeout=START_SECONDS)
        if not told:
            raise ClusterError(f"machine {specification.name} did not start; see {directory}/machine.log")
        self.process = Process.of(int(told))

    def go(self) -> None:
        """Its record is written and its cable is in: let it run on its own."""
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write("go\n")
        self._starter.stdin.close()
        self._starter.stdout.close()


def boot(path: Path) -> None:
    """The new process: becomes the machine described at `path`. Returns when the machine is shut down."""
    specification = decode(path.read_text())
    cgroups.join(specification.cgroup, os.getpid())
    mounts.unshare(CLONE_NEWCGROUP)
    cgroups.join(f"{specification.cgroup}/{cgroups.SYSTEM}", os.getpid())
    cgroups.enable_children(specification.cgroup)
    mounts.unshare(CLONE_FLAGS)
    child = os.fork()
    if child:
        print(child, flush=True)
        return
    if sys.stdin.readline() != "go\n":
        return
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    _become(specification)


def _become(specification: Specification) -> None:
    """Everything that happens inside the namespaces, as PID 1."""
    socket.sethostname(specification.name)
    slots = [Slot(service) for service in specification.services]
    mounts.detach_from_host()
    if specification.root is None:
        mounts.own_proc()
    else:
        root = specification.root
        mounts.enter_root(Path(root.scratch), root.binds, root.files, root.visible, root.masks)
    for name, value in specification.sysctls.items():
        Path("/proc/sys", name).write_text(value)
    supervise(slots)
