"""Names of images: in full, as engines want them that have no table of short names, and without tag and digest."""

from __future__ import annotations


def full(name: str) -> str:
    """With registry and folder: `debian:12` is docker.io/library/debian:12, `me/thing` is docker.io/me/thing."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def repository(name: str) -> str:
    """The full name without tag and digest."""
    folder, slash, last = full(name).partition("@")[0].rpartition("/")
    return folder + slash + last.partition(":")[0]
