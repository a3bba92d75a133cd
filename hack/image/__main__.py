"""`python3 hack/image`: builds the container image of the tree as it is and writes `build/image/hypermesh.tar`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from image_build import archive, building, names
from image_build.errors import ImageError

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_root() -> Path:
    """The user's cache: $HYPERMESH_CACHE, else `hypermesh` in $XDG_CACHE_HOME or ~/.cache."""
    if explicit := os.environ.get("HYPERMESH_CACHE"):
        return Path(explicit).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypermesh"


def main(arguments: list[str]) -> int:
    """Parse the command line, build, answer the exit status."""
    parser = argparse.ArgumentParser(prog="python3 hack/image", description=__doc__)
    parser.add_argument("--engine", choices=["docker", "podman", "buildah"], help="default: the first that works")
    parser.add_argument(
        "--base",
        default=os.environ.get("HYPERMESH_BASE") or None,
        type=names.full,
        metavar="NAME[@sha256:…]",
        help="Debian 12 image to build on, never bootstrapped (HYPERMESH_BASE; default debian:bookworm-slim, pulled "
        "or bootstrapped)",
    )
    parser.add_argument("--pull", action="store_true", help="ask the registry for a newer base first")
    parser.add_argument("--from-source", action="store_true", help="build liboqs and cometbft in the image's stages")
    parser.add_argument(
        "--thin",
        type=Path,
        metavar="TAR",
        help="afterwards also write TAR: the image without the layers whose digests stand on standard input",
    )
    options = parser.parse_args(arguments)
    try:
        asked = building.Options(options.engine, options.from_source, options.base, options.pull)
        image = building.make(CHECKOUT, cache_root(), asked)
        if options.thin:
            written = archive.thin(image, options.thin, frozenset(sys.stdin.read().split()))
            print(f"image: {options.thin}, {written / 1e6:.1f} MB")
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
