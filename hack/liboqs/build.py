#!/usr/bin/env python3
"""Build the liboqs native library: crate sources → static library → one `liboqs.so` with a small shim.

Data flow: `cargo vendor` fetches the crate `oqs-sys` (which carries the liboqs C sources; `Cargo.lock` pins
its checksum) → cmake and ninja compile only the algorithms we use → the static library and the shim are
linked → the result is renamed into the user's cache under a key of everything that shaped it →
`build/liboqs` in the checkout points there. liboqs-python finds it by
`OQS_INSTALL_PATH=<checkout>/build/liboqs`; without it, its import would try to clone and compile liboqs.

Why not AVX2 for Falcon: that variant uses the CPU's floating point and makes no constant-time claim; the
portable one emulates floating point with integers. Paths are mapped out of the objects, so that a host build
and an image build with the same compiler give the same bytes.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
CRATE = "oqs-sys"
ALGORITHMS = ("SIG_falcon_1024", "SIG_falcon_padded_1024", "KEM_ml_kem_1024")
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
    "-DCMAKE_INSTALL_LIBDIR=lib",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DOQS_BUILD_ONLY_LIB=ON",
    "-DOQS_DIST_BUILD=ON",
    "-DOQS_USE_OPENSSL=OFF",
    f"-DOQS_MINIMAL_BUILD={';'.join(ALGORITHMS)}",
    "-DOQS_ENABLE_SIG_falcon_1024_avx2=OFF",
    "-DOQS_ENABLE_SIG_falcon_padded_1024_avx2=OFF",
)
LINK_OPTIONS = (
    "-shared",
    "-Wl,-soname,liboqs.so",
    "-Wl,-Bsymbolic",
    "-Wl,-z,defs,-z,relro,-z,now",
    "-Wl,--build-id=sha1",
)
# Debian's plain `cargo` is older than lock-file format 4; `cargo-web` is the current one.
DEBIAN_PACKAGES = {
    "cc": ("gcc", "libc6-dev"),
    "cmake": ("cmake",),
    "ninja": ("ninja-build",),
    "cargo": ("cargo-web",),
}
STEPS = 4


class BuildError(RuntimeError):
    """A build step failed; the message names the step, the cause and the remedy."""


def say(step: int, text: str, since: float) -> None:
    """Print one plain progress line: step n of m, what, seconds since the start."""
    print(f"liboqs [{step}/{STEPS}] {text} ({time.monotonic() - since:.0f} s)", flush=True)


def run(command: Iterable[str | Path], what: str) -> str:
    """Run `command`, return its stdout; raise BuildError with the end of its output when it fails."""
    words = [str(part) for part in command]
    done = subprocess.run(words, text=True, capture_output=True, timeout=1800, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise BuildError(f"{what} failed (exit {done.returncode}): {' '.join(words)}\n{tail}")
    return done.stdout


def install_missing_tools() -> None:
    """Install the Debian packages of the tools not on PATH; a BuildError names them if it can't."""
    missing = [name for name in DEBIAN_PACKAGES if shutil.which(name) is None]
    if not missing:
        return
    packages = [package for name in missing for package in DEBIAN_PACKAGES[name]]
    remedy = f"install the Debian packages {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"building liboqs needs {', '.join(missing)}: {remedy}, then run this again")
    print(f"liboqs: installing Debian packages {' '.join(packages)}", flush=True)
    run(["apt-get", "update", "-qq"], "apt-get update")
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], f"apt-get ({remedy})")


def cache_root() -> Path:
    """The user's cache of built tools: $HYPERMESH_CACHE, else `hypermesh` in $XDG_CACHE_HOME or ~/.cache."""
    if explicit := os.environ.get("HYPERMESH_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypermesh"


def build_key(inputs: Sequence[Path], compiler: str, machine: str) -> str:
    """16 hex digits over all that shapes the library: inputs' bytes, options, compiler, machine."""
    digest = hashlib.sha256()
    for part in (*CMAKE_OPTIONS, *LINK_OPTIONS, compiler, machine):
        digest.update(part.encode() + b"\0")
    for path in sorted(inputs):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def fetch_sources(into: Path) -> Path:
    """Fetch the pinned crate (cargo checks it against Cargo.lock); return its liboqs source folder."""
    manifest = str(HERE / "Cargo.toml")
    run(
        ["cargo", "vendor", "--quiet", "--locked", "--manifest-path", manifest, str(into)],
        "fetching the liboqs sources",
    )
    return into / CRATE / "liboqs"


def compile_library(sources: Path, work: Path, prefix: Path) -> None:
    """Compile `sources` in `work`; install headers and the linked `lib/liboqs.so` in `prefix`."""
    names = {sources: "liboqs", work: "build", HERE: "."}
    mapped: list[str | Path] = [f"-ffile-prefix-map={path}={name}" for path, name in names.items()]
    configure: list[str | Path] = ["cmake", "-G", "Ninja", "-S", sources, "-B", work / "cmake"]
    variables = [f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DCMAKE_C_FLAGS={' '.join(map(str, mapped))}"]
    run([*configure, *variables, *CMAKE_OPTIONS], "configuring liboqs")
    run(["ninja", "-C", work / "cmake", "-j", str(os.cpu_count() or 1), "install"], "compiling liboqs")
    library, archive = prefix / "lib" / "liboqs.so", work / "cmake" / "lib" / "liboqs.a"
    shim: list[str | Path] = ["-I", prefix / "include", *mapped, HERE / "shim" / "sig_supports_ctx_str.c"]
    whole: list[str | Path] = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
    shutil.rmtree(prefix / "lib")  # the archive and the cmake files: only the shared library is used
    library.parent.mkdir()
    compile_and_link = ["cc", "-O2", "-fPIC", "-Wall", "-Werror"]
    run([*compile_and_link, *shim, *whole, *LINK_OPTIONS, "-o", library], "linking liboqs.so")


def build(prefix: Path, scratch: Path, key: str, compiler: str) -> None:
    """Build under `scratch`, then rename the complete result to `prefix`: it exists whole or not at all."""
    since = time.monotonic()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="liboqs-build-", dir=scratch) as folder:
        work, staged = Path(folder), Path(folder) / "staged"
        say(1, f"fetching crate {CRATE}", since)
        sources = fetch_sources(work / "vendor")
        say(2, f"compiling {', '.join(ALGORITHMS)}", since)
        compile_library(sources, work, staged)
        say(3, "writing the manifest", since)
        shutil.copy(sources / "LICENSE.txt", staged / "LICENSE.txt")
        made_by = {"compiler": compiler, "machine": platform.machine()}
        manifest = {"key": key, **made_by, "algorithms": ALGORITHMS, "options": CMAKE_OPTIONS}
        (staged / "BUILD.json").write_text(json.dumps(manifest, indent=2) + "\n")
        prefix.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(prefix)
    say(4, f"ready in {prefix}", since)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file, so that two builds at once do the work once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def point(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, replacing an older link in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(link)


def main(argv: Sequence[str] | None = None) -> int:
    """Build into the cache and link `build/liboqs`, or with --prefix install into one folder (images)."""
    parser = argparse.ArgumentParser(description="Build liboqs with only Falcon-1024 and ML-KEM-1024.")
    parser.add_argument("--prefix", type=Path, help="install here, without cache and link; must not exist")
    parser.add_argument("--locate", action="store_true", help="print where the cache keeps it; build nothing")
    arguments = parser.parse_args(argv)
    try:
        if not arguments.locate:
            install_missing_tools()
        compiler = run(["cc", "--version"], "asking the compiler's version").splitlines()[0]
        inputs = [HERE / "build.py", HERE / "Cargo.toml", HERE / "Cargo.lock", *(HERE / "shim").iterdir()]
        key = build_key(inputs, compiler, platform.machine())
        if arguments.prefix:
            build(arguments.prefix.absolute(), arguments.prefix.absolute().parent, key, compiler)
            return 0
        cache = cache_root()
        installed = cache / f"liboqs-{key}"
        if arguments.locate:
            print(installed)
            return 0
        with locked(cache / "liboqs.lock"):
            if not installed.exists():
                build(installed, cache, key, compiler)
        point(CHECKOUT / "build" / "liboqs", installed)
        print(f"liboqs: {CHECKOUT / 'build' / 'liboqs'} -> {installed}")
    except BuildError as error:
        print(f"liboqs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
