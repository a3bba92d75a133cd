"""What goes into the build: the files that .dockerignore lets through, and a key over their content.

The rules are Docker's: patterns in order, the last match wins, `!` lets in again, `**` is any number of folders.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """One line of .dockerignore: paths that match are left out, or let in again when `include`."""

    include: bool
    text: str
    pattern: re.Pattern[str]


def parse_rules(text: str) -> tuple[Rule, ...]:
    """The rules of a .dockerignore file, without comments and empty lines."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(_rule(line) for line in lines if line and not line.startswith("#"))


def _rule(line: str) -> Rule:
    include = line.startswith("!")
    text = line.removeprefix("!").strip("/")
    return Rule(include, text, re.compile(_regex(text) + r"(?:/.*)?$"))


def _regex(glob: str) -> str:
    tokens = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return "".join(tokens[part] if part in tokens else re.escape(part) for part in parts)


def included(path: str, rules: Sequence[Rule]) -> bool:
    """Whether a path (relative, with slashes) goes into the build."""
    matching = [rule.include for rule in rules if rule.pattern.match(path)]
    return matching[-1] if matching else True


def files(root: Path, rules: Sequence[Rule]) -> Iterator[str]:
    """Relative paths of all files that go into the build, sorted; looks only into folders that can hold one."""
    yield from sorted(_walk(root, "", rules))


def _walk(root: Path, folder: str, rules: Sequence[Rule]) -> Iterator[str]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if included(path, rules) or _holds_exception(path, rules):
                    yield from _walk(root, path, rules)
            elif included(path, rules):
                yield path


def _holds_exception(folder: str, rules: Sequence[Rule]) -> bool:
    return any(rule.include and rule.text.startswith(f"{folder}/") for rule in rules)


def key(root: Path, paths: Sequence[str], facts: Sequence[str]) -> str:
    """SHA-256 in hex over names, executable bits and contents of the files, and over further `facts`."""
    digest = hashlib.sha256()
    for path in paths:
        executable = os.access(root / path, os.X_OK)
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        digest.update(f"{path}\0{executable}\0{content}\n".encode())
    for fact in facts:
        digest.update(f"{fact}\n".encode())
    return digest.hexdigest()
