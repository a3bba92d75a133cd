"""The one error of this tool, and the one way it runs programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

QUICK_SECONDS = 60
INSTALL_SECONDS = 900


class ImageError(Exception):
    """The image can't be built; the message names what failed, why, and what to do."""


def output(command: Sequence[str | Path], seconds: float = QUICK_SECONDS) -> str:
    """Run a program, return its stdout; ImageError with the end of its stderr when it fails or takes too long."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise ImageError(f"{words[0]} is not installed: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"`{' '.join(words)}` took more than {seconds:.0f} s; look what it waits for") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ImageError(f"`{' '.join(words)}` failed with {done.returncode}:\n{tail}")
    return done.stdout


def succeeds(command: Sequence[str | Path], seconds: float = QUICK_SECONDS) -> bool:
    """Whether a program is there and ends well in time."""
    try:
        output(command, seconds)
    except ImageError:
        return False
    return True


def install_debian(package: str, purpose: str) -> None:
    """Install one Debian package, or say who has to."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ImageError(f"{purpose} needs {package}: install it (Debian: `apt-get install {package}`), then retry")
    print(f"image: installing the Debian package {package}", flush=True)
    output(["apt-get", "update", "-qq"], INSTALL_SECONDS)
    output(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], INSTALL_SECONDS)
