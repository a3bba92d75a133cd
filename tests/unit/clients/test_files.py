"""Durable files: the old one or the new one, whole, with the asked mode."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hypermesh_clients.files import write_durably

KILLED_BEFORE_RENAME = """
import os, pathlib, signal, sys
from hypermesh_clients.files import write_durably
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_durably(pathlib.Path(sys.argv[1]), b"new", 0o600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with `old` in it, alone in its directory."""
    file = tmp_path / "file"
    write_durably(file, b"old", 0o644)
    return file


def test_content_and_mode_are_replaced_and_nothing_is_left_over(path: Path) -> None:
    write_durably(path, b"\x00new", 0o600)
    assert path.read_bytes() == b"\x00new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_before_the_rename_leaves_the_old_file_and_the_next_write_cleans_up(path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_RENAME, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    left = path.with_name(".file.new")
    assert left.read_bytes() == b"new"
    left.chmod(0o666)  # what is left over lends its mode to nobody
    write_durably(path, b"newer", 0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"newer", 0o600)
    assert list(path.parent.iterdir()) == [path]


def test_file_then_directory_are_synced_around_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bytes]] = []

    def seen(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", seen)
    write_durably(path, b"new", 0o600)
    assert synced == [(".file.new", b"old"), (path.parent.name, b"new")]


def test_when_only_the_directory_is_not_synced_the_new_file_is_there_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path.parent:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
