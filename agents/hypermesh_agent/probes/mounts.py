"""Mount table of the machine, from /proc/1/mountinfo (proc_pid_mountinfo(5)).

The first process's table, not our own: in a Pod the agent sees its container's mounts. Bind mounts of a sub-directory
(kubelet makes dozens for each Pod) are left out: they tell nothing about the device that the whole mount does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..readings import Tree

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_WITH_SUBVOLUMES: Final = frozenset({"btrfs", "bcachefs"})


@dataclass(frozen=True, slots=True)
class Mount:
    """device: `major:minor`; source: what was mounted, e.g. /dev/vda1."""

    device: str
    point: str
    file_system: str
    source: str


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Whole-file-system mounts in order, each device and point once; lines of another form are passed over."""
    found: dict[tuple[str, str], Mount] = {}
    for line in text.splitlines():
        head, mark, tail = line.partition(" - ")
        first, last = head.split(" "), tail.split(" ")
        if not mark or len(first) < 6 or len(last) < 2:
            continue
        device, root, point, file_system = first[2], first[3], _unescape(first[4]), last[0]
        if root != "/" and file_system not in _WITH_SUBVOLUMES:
            continue
        found.setdefault((device, point), Mount(device, point, file_system, _unescape(last[1])))
    return tuple(found.values())


def read(tree: Tree) -> tuple[Mount, ...]:
    return parse_mountinfo(tree.text("/proc/1/mountinfo") or tree.text("/proc/self/mountinfo") or "")


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash stand as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0xFF), text)
