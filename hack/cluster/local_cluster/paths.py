"""Where the checkout, the cache and a cluster's state are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
BINARIES = CHECKOUT / "build" / "bin"


def state_directory(environment: Mapping[str, str]) -> Path:
    """`$HYPERMESH_CLUSTER_DIR`, else `build/cluster` of this checkout."""
    chosen = environment.get("HYPERMESH_CLUSTER_DIR")
    return Path(chosen).absolute() if chosen else CHECKOUT / "build" / "cluster"


def cache_root(environment: Mapping[str, str]) -> Path:
    """`$HYPERMESH_CACHE`, else `$XDG_CACHE_HOME/hypermesh`, else `~/.cache/hypermesh`."""
    if chosen := environment.get("HYPERMESH_CACHE"):
        return Path(chosen).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "/root")) / ".cache")
    return Path(base).absolute() / "hypermesh"
