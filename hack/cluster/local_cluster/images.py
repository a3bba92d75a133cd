"""The two images a cluster needs before it has any: pause (one C file) and CoreDNS. Made here, kept in the cache."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tempfile
from pathlib import Path

from local_cluster import oci
from local_cluster.manifests import COREDNS_IMAGE
from local_cluster.node import SANDBOX_IMAGE

PAUSE_SOURCE = Path(__file__).resolve().parent.parent / "pause" / "pause.c"
COMPILE = ["gcc", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror"]
COMPILE_SECONDS = 60


def base_images(cache: Path, binaries: Path) -> list[Path]:
    """Paths of the image tars, made first if they are not in the cache."""
    return [_pause(cache), _coredns(cache, binaries)]


def _pause(cache: Path) -> Path:
    key = hashlib.sha256(PAUSE_SOURCE.read_bytes() + " ".join(COMPILE).encode()).hexdigest()[:16]
    target = cache / "images" / f"pause-{key}.tar"
    if not target.exists():
        with tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch) / "pause"
            subprocess.run([*COMPILE, "-o", str(program), str(PAUSE_SOURCE)], check=True, timeout=COMPILE_SECONDS)
            _write(target, oci.image(SANDBOX_IMAGE, {"/pause": program.read_bytes()}, ["/pause"], platform.machine()))
    return target


def _coredns(cache: Path, binaries: Path) -> Path:
    program = (binaries / "coredns").resolve()
    target = cache / "images" / f"{program.parent.name}.tar"
    if not target.exists():
        content = {"/coredns": program.read_bytes()}
        _write(target, oci.image(COREDNS_IMAGE, content, ["/coredns"], platform.machine()))
    return target


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as fresh:
        fresh.write(content)
    Path(fresh.name).replace(target)
