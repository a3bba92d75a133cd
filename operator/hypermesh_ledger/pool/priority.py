"""What goes before what: the class of an operation, by its kind alone.

What gives hardware back or keeps the mesh safe and proven goes before what takes hardware: proofs lapse with their
epoch, and a release is what others wait for. Operations carry no fee; when one does, it belongs between class and age.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

LIFT_BLOCKS: Final = 4
"""The oldest of a lane, when it has seen so many blocks pass, goes on in the first class: no class waits for ever.

One of a lane at a time. Were all of them lifted, a flood would soon be there, and before everybody else."""

_FIRST: Final = frozenset(
    {
        *("release", "retire_asset"),
        *("enrol_node", "join_validator", "leave_validator", "revoke"),
        *("commit_work", "prove", "commit_memory", "prove_memory"),
    }
)


class Class(IntEnum):
    """Lower goes first."""

    FIRST = 0
    ORDINARY = 1


def class_of(kind: str) -> Class:
    """The class that an operation of this kind is admitted to."""
    return Class.FIRST if kind in _FIRST else Class.ORDINARY
