"""Binaries this machine has built already and the image may take as they are: only where the bytes are the same.

liboqs is the same when the same compiler made it (paths are mapped out of it); cometbft when the same Go did
(`-trimpath`, no cgo, no version-control stamp). In every other case the Dockerfile's own stage builds them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

from image_build.errors import output

IMAGE_COMPILER = "cc (Debian 12.2.0-14+deb12u1) 12.2.0"
BUILD_INFO_MAGIC = b"\xff Go buildinf:"


def stages(checkout: Path) -> dict[str, Path]:
    """The Dockerfile stages that a folder of this machine can replace: stage -> folder."""
    found = {"liboqs": _liboqs(checkout), "cometbft": _cometbft(checkout)}
    return {stage: folder for stage, folder in found.items() if folder is not None}


def _liboqs(checkout: Path) -> Path | None:
    if shutil.which("cc") is None:
        return None
    folder = Path(output([sys.executable, checkout / "hack/liboqs/build.py", "--locate"]).strip())
    manifest = folder / "BUILD.json"
    if not manifest.exists():
        return None
    facts = json.loads(manifest.read_text())
    same = facts["compiler"] == IMAGE_COMPILER and facts["machine"] == platform.machine()
    return folder if same else None


def _cometbft(checkout: Path) -> Path | None:
    toolchain = str(checkout / "hack" / "toolchain")
    if toolchain not in sys.path:
        sys.path.insert(0, toolchain)
    from pinned_tools import building, cache, catalog, gotool

    tool = next(tool for tool in catalog.TOOLS if tool.name == "cometbft")
    target = building.plan(tool, cache.cache_root(os.environ)).target
    if not target.exists() or go_version(target.read_bytes()) != f"go{gotool.GO_VERSION}":
        return None
    return target.parent


def go_version(binary: bytes) -> str:
    """The Go version stamped into a Go binary, "" when there is none.

    Format: the comment of Go's debug/buildinfo: 14 bytes of magic, pointer size, flags; with flag 2 set, the
    version follows at offset 32 as a length (varint, one byte below 128) and text.
    """
    at = binary.find(BUILD_INFO_MAGIC)
    if at < 0 or not binary[at + 15] & 2:
        return ""
    length = binary[at + 32]
    text = binary[at + 33 : at + 33 + length].decode("ascii", "replace")
    return text if re.fullmatch(r"go\d[\w.+-]*", text) else ""
