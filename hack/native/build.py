#!/usr/bin/env python3
"""Build the Rust parts of Python packages: a crate in the package's folder -> `_core.abi3.so` beside `__init__.py`.

Data flow: cargo fetches what the crate's Cargo.lock pins (with checksums) and compiles it -> the library is renamed
into the user's cache under a key of everything that shaped it -> a link in the package's folder points there. Any
CPython from 3.11 on loads it: abi3 is the part of its interface that stays. Another crate is one more name in CRATES.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "hack" / "toolchain"))
from pinned_tools import cache  # noqa: E402

CRATES = (CHECKOUT / "operator" / "hypermesh_native",)
LIBRARY = "_core.abi3.so"
SECONDS = 1800
# Debian's plain `cargo` is older than lock-file format 4; `cargo-web` is the current one.
DEBIAN_PACKAGES = ("cargo=cargo-web", "cc=gcc", "/usr/include/stdio.h=libc6-dev")


class BuildError(RuntimeError):
    """The build failed; the message names the cause and the remedy."""


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Standard output. Raises BuildError with the end of all output when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env=os.environ | environment, text=True, capture_output=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{words[0]}: {error}") from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise BuildError(f"failed (exit {done.returncode}): {' '.join(words)}\n{tail}")
    return done.stdout


def key(crate: Path) -> str:
    """Of all that shapes the library: the crate's files, this file, compiler and machine."""
    sources = [crate / "Cargo.toml", crate / "Cargo.lock", Path(__file__), *crate.glob("src/**/*.rs")]
    named = [(path.name if path.parent.name != "src" else f"src/{path.name}", path.read_bytes()) for path in sources]
    return cache.key_of(named, [run(["rustc", "--version"]), platform.machine()])


def compile_into(crate: Path, library: Path) -> None:
    """Raises BuildError."""
    with tempfile.TemporaryDirectory(prefix=f".{crate.name}-", dir=library.parent) as target:
        names = {target: "build", crate: crate.name, os.environ.get("CARGO_HOME") or Path.home() / ".cargo": "cargo"}
        mapped = "\x1f".join(f"--remap-path-prefix={path}={name}" for path, name in names.items())
        manifest = ["--locked", "--manifest-path", crate / "Cargo.toml"]
        run(
            ["cargo", "build", "--quiet", "--release", *manifest],
            CARGO_TARGET_DIR=target,
            CARGO_ENCODED_RUSTFLAGS=mapped,
            PYO3_NO_PYTHON="1",
            PYO3_BUILD_EXTENSION_MODULE="1",  # the interpreter that loads it brings Python's symbols
        )
        shutil.copy(Path(target) / "release" / "lib_core.so", library)


def build(crate: Path) -> None:
    """Have the library of a crate in the cache, and a link to it in the package. Raises BuildError."""
    library = cache.entry(cache.cache_root(os.environ), crate.name, key(crate)).with_name(LIBRARY)
    with cache.being_made(library) as scratch:
        if scratch is not None:
            started = time.monotonic()
            print(f"native: compiling {crate.name}", flush=True)
            compile_into(crate, scratch / library.name)
            print(f"native: {crate.name} is ready ({time.monotonic() - started:.0f} s)", flush=True)
    cache.link(library, crate / LIBRARY)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the Rust parts of our Python packages.")
    parser.add_argument("--in-place", action="store_true", help="without cache and link: for images")
    arguments = parser.parse_args()
    try:
        if not all(map(shutil.which, ("cargo", "rustc", "cc"))):
            subprocess.run([CHECKOUT / "hack" / "host.sh", *DEBIAN_PACKAGES], check=True, timeout=SECONDS)
        for crate in CRATES:
            if arguments.in_place:
                compile_into(crate, crate / LIBRARY)
            else:
                build(crate)
    except (BuildError, subprocess.SubprocessError) as error:
        print(f"native: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
