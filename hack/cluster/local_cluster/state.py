"""What a cluster started, written before it is relied on, so that `down` can undo it after any crash.

`<directory>/state.json` is replaced in one rename. Two commands on one cluster wait for each other at a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from local_cluster.addresses import Plan
from local_cluster.processes import Process

VERSION = 1
LOCK_SECONDS = 300
LOCK_POLL_SECONDS = 0.1
LOCK = ".lock"
KEPT_DIRECTORIES = ("certificates", "machines", "volumes")
KEPT_FILES = ("state.json", ".state.json.new", "kubeconfig")


class ClusterError(Exception):
    """A command cannot go on; the message names the object, what is wrong, and what to do."""


@dataclass
class State:
    """The record of one cluster: how many nodes, and which machines run."""

    directory: Path
    nodes: int = 0
    machines: dict[str, Process] = field(default_factory=dict)

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
    body = {"version": VERSION, "nodes": state.nodes, "machines": machines}
    return json.dumps(body, indent=2) + "\n"


def decode(directory: Path, text: str) -> State:
    """The record read back; raises ClusterError when the text is none."""
    try:
        body: dict[str, Any] = json.loads(text)
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']}")
        machines = {name: Process(item["pid"], item["start"]) for name, item in body["machines"].items()}
        return State(directory, int(body["nodes"]), machines)
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
    """Holds the cluster's lock; waits a bounded time for another command to finish.

    The lock is a file in the directory, which `down` removes while holding it: whoever waited for a file that is
    gone opens the new one and waits for that.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / LOCK).open("w") as lock:
            if _take(lock, directory / LOCK):
                yield
                return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"another command has held {directory / LOCK} for {LOCK_SECONDS} s; end it, then try again"
            )
        time.sleep(LOCK_POLL_SECONDS)


def _take(lock: TextIO, path: Path) -> bool:
    """Locks an open file; False when another has it or when the path names another file by now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(lock.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def remove_data(directory: Path) -> None:
    """Removes everything a cluster keeps in its directory, and the directory if nothing else is in it."""
    for name in KEPT_DIRECTORIES:
        if (directory / name).exists():
            shutil.rmtree(directory / name)
    for name in (*KEPT_FILES, LOCK):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files are in it
        directory.rmdir()
