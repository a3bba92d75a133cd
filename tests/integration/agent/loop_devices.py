"""Loop devices for the tests: real ones, always detached again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


def attach(image: Path, *options: str) -> str:
    """The device, e.g. /dev/loop3."""
    command = ["losetup", "--find", "--show", *options, str(image)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], check=True)


def image(directory: Path, name: str, mebibytes: int) -> Path:
    """A sparse file to attach."""
    path = directory / name
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)
    return path


@contextlib.contextmanager
def attached(path: Path, *options: str) -> Iterator[str]:
    """Attached while the body runs, unless the body detached it."""
    device = attach(path, *options)
    try:
        yield device
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            detach(device)
