"""Where finished binaries live, and the rule that nothing there is ever half-made or made twice.

`<cache>/tools/<name>-<key>/<name>`: the key is a hash of everything the binary is compiled from, so a binary that
is there is right, and one that is not is built beside and renamed in. Checkouts share the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

KEY_LENGTH = 16


def cache_root(environment: Mapping[str, str]) -> Path:
    """`$HYPERMESH_CACHE`, else `$XDG_CACHE_HOME/hypermesh`, else `~/.cache/hypermesh`."""
    if chosen := environment.get("HYPERMESH_CACHE"):
        return Path(chosen).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "/root")) / ".cache")
    return Path(base).absolute() / "hypermesh"


def key_of(sources: Iterable[tuple[str, bytes]], flags: Iterable[str]) -> str:
    """A hash over named source texts and flags, each framed by its length so that no two inputs run together."""
    digest = hashlib.sha256()
    parts = [part for name, content in sorted(sources) for part in (name.encode(), content)]
    for part in [*parts, *(flag.encode() for flag in flags)]:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:KEY_LENGTH]


def entry(cache: Path, name: str, key: str) -> Path:
    """The path of a finished file; it exists exactly when it is complete."""
    return cache / "tools" / f"{name}-{key}" / name


@contextlib.contextmanager
def being_made(target: Path) -> Iterator[Path | None]:
    """Yields a scratch folder to make `target` in, or None when it is already there.

    Holds a lock on the entry, so a second builder waits and then finds the result. What the body leaves in the
    scratch folder under the target's file name appears at `target` in one rename; nothing appears when it raises.
    """
    folder = target.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        for abandoned in folder.parent.glob(f".{folder.name}.*/"):  # of a builder that was killed: we have its lock
            shutil.rmtree(abandoned)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield scratch
            (scratch / target.name).chmod(0o755)
            scratch.chmod(0o755)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def link(target: Path, name: Path) -> None:
    """Points the symlink `name` at `target`, replacing an older link in one step."""
    if name.is_symlink() and name.readlink() == target:
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    fresh = name.with_name(f".{name.name}.{os.getpid()}")
    fresh.symlink_to(target)
    fresh.replace(name)
