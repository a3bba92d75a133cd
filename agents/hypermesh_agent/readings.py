"""Bounded reading of kernel files below an injected root, so that every probe runs on a fixture tree as on `/`.

A file that is absent, unreadable or vanishes while it is read is `None`: hardware comes and goes, and sysfs attributes
answer EIO or ENODEV when their device is on its way out.
"""

from __future__ import annotations

import os
from pathlib import Path

from .hardware import Unreadable

FILE_BYTES = 4 << 20
HIGHEST_CPU = 8191
"""CONFIG_NR_CPUS goes to 8192 in distribution kernels."""


class Tree:
    """The file system as the probes see it. All paths are absolute in the tree: `/sys/block`."""

    __slots__ = ("_root",)

    def __init__(self, root: Path | str = "/") -> None:
        self._root = os.fspath(root).rstrip("/")

    def path(self, path: str) -> str:
        return self._root + path

    def text(self, path: str) -> str | None:
        """Content without surrounding white space; at most 4 MiB are read; bytes that are no UTF-8 are replaced."""
        try:
            with open(self._root + path, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of files a survey
                chunks, left = [], FILE_BYTES
                while left > 0 and (chunk := file.read(left)):
                    chunks.append(chunk)
                    left -= len(chunk)
        except (OSError, ValueError):
            return None
        return b"".join(chunks).decode("utf-8", "replace").strip("\0 \t\r\n")

    def integer(self, path: str) -> int | None:
        return integer(self.text(path))

    def names(self, path: str) -> list[str]:
        """Names in a directory, sorted; empty when there is none."""
        try:
            return sorted(os.listdir(self._root + path))  # noqa: PTH208 - names, not paths
        except (OSError, ValueError):
            return []

    def exists(self, path: str) -> bool:
        return os.path.lexists(self._root + path)

    def real(self, path: str) -> str | None:
        """The path with all links resolved, still as seen in the tree; None when it does not exist or leads outside."""
        try:
            real, root = os.path.realpath(self._root + path, strict=True), os.path.realpath(self._root or "/")
        except (OSError, ValueError):
            return None
        if root == "/":
            return real
        return real[len(root) :] if real.startswith(root + "/") else None


def integer(text: str | None, default: int | None = None) -> int | None:
    """A decimal number of at most 20 digits (the kernel's unsigned 64 bit), else `default`."""
    if text is None:
        return default
    text = text.strip()
    digits = text[1:] if text.startswith("-") else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 20:
        return int(text)
    return default


def cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers of the kernel's list format, `0-3,8,10-11` or `0-31:2/4` (bitmap_parselist(9)), sorted.

    Raises Unreadable when the text has another form or names a CPU above 8191.
    """
    cpus: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        span, _, stride = part.partition(":")
        first_text, dash, last_text = span.partition("-")
        first = integer(first_text)
        last = integer(last_text) if dash else first
        used, group = 1, 1
        if stride:
            used_text, _, group_text = stride.partition("/")
            used, group = integer(used_text) or 0, integer(group_text) or 0
        if first is None or last is None or not 0 <= first <= last <= HIGHEST_CPU or not 1 <= used <= group:
            raise Unreadable(
                f"CPU list {part[:40]!r} is not of the form first-last[:used/group] with CPUs 0-{HIGHEST_CPU}"
            )
        cpus.update(cpu for cpu in range(first, last + 1) if (cpu - first) % group < used)
    return tuple(sorted(cpus))


def cpu_list_text(cpus: tuple[int, ...]) -> str:
    """The kernel's shortest list form of sorted CPU numbers: `0-3,8`."""
    spans: list[list[int]] = []
    for cpu in cpus:
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def fields(text: str, separator: str = ":") -> dict[str, str]:
    """`key: value` lines as a mapping; the first of equal keys wins; lines of another form are passed over."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, mark, value = line.partition(separator)
        if mark and (key := key.strip()):
            found.setdefault(key, value.strip())
    return found
