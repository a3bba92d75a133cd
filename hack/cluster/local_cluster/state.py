"""What a cluster started, written before it is relied on, so that `down` can undo it after any crash.

`<directory>/state.json` is replaced in one rename. Two commands on one cluster wait for each other at a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_cluster.addresses import Plan
from local_cluster.processes import Process

VERSION = 1
LOCK_SECONDS = 300


class ClusterError(Exception):
    """A command cannot go on; the message names the object, what is wrong, and what to do."""


@dataclass
class State:
    """The record of one cluster: how many nodes, which machines run, which kernel settings were there before."""

    directory: Path
    nodes: int = 0
    machines: dict[str, Process] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The cluster's names and addresses."""
        return Plan.of(self.directory)

    @property
    def kubeconfig(self) -> Path:
        """Credentials of the cluster's administrator."""
        return self.directory / "kubeconfig"

    def machine_directory(self, name: str) -> Path:
        """Where one machine keeps its disks and logs."""
        return self.directory / "machines" / name

    def running(self, name: str) -> bool:
        """Whether the machine's first process is alive."""
        return name in self.machines and self.machines[name].alive()

    def save(self) -> None:
        """Replaces the record on disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        fresh = self.directory / ".state.json.new"
        with fresh.open("w") as file:
            file.write(encode(self))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.directory / "state.json")


def encode(state: State) -> str:
    """The record as JSON text."""
    machines = {name: {"pid": item.pid, "start": item.start} for name, item in state.machines.items()}
    body = {"version": VERSION, "nodes": state.nodes, "machines": machines, "sysctls": state.sysctls}
    return json.dumps(body, indent=2) + "\n"


def decode(directory: Path, text: str) -> State:
    """The record read back; raises ClusterError when the text is none."""
    try:
        body: dict[str, Any] = json.loads(text)
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']}")
        machines = {name: Process(item["pid"], item["start"]) for name, item in body["machines"].items()}
        return State(directory, int(body["nodes"]), machines, dict(body["sysctls"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"{directory}/state.json is not a cluster record ({error}); remove the file and run `cluster-down`"
        ) from error


def load(directory: Path) -> State:
    """The cluster's record, or an empty one when there is none."""
    try:
        return decode(directory, (directory / "state.json").read_text())
    except FileNotFoundError:
        return State(directory)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the cluster's lock; waits a bounded time for another command to finish."""
    directory.mkdir(parents=True, exist_ok=True)
    lock_path = directory.parent / f".{directory.name}.lock"
    deadline = time.monotonic() + LOCK_SECONDS
    with lock_path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"another command has held {lock_path} for {LOCK_SECONDS} s; end it, then try again"
                    ) from None
                time.sleep(0.1)
        yield
