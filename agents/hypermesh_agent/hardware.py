"""What the probes find: one `Hardware` for each Asset this node can publish.

Data flow: probes (files, NVML) -> `Inventory` -> registration (ledger) and publishing (Asset resources).
Amounts are integers in base units: millicores for CPU, bytes for memory, storage and GPU memory. A value that changes
by itself all the time (a clock frequency, free memory) stands in `readings`: it is published along with the next real
change but is none itself, so a quiet machine writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

Json = bool | int | str | list["Json"] | dict[str, "Json"]

HARDWARE_ID_LENGTH = 128
_HARDWARE_ID_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+-")


class Kind(StrEnum):
    """Type of an Asset, as `spec.type` spells it."""

    CPU = "cpu"
    GPU = "gpu"
    MEMORY = "memory"
    STORAGE = "storage"


class ProbeFailed(Exception):
    """One kind of hardware could not be read; the others are unaffected."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(f"{kind} probe: {message}")
        self.kind = kind
        self.message = message


class Unreadable(ValueError):
    """A kernel file or a driver's answer does not have the form its documentation promises."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One piece of hardware, before ledger and cluster know of it.

    size: what the hardware has. capacity: what the owner gives of it (size less the reserve, or what the pool's file
    system has room for); this is the figure the ledger guards. Both in base units, 0 <= capacity <= size.
    detail: stable facts for `status.<kind>`. readings: figures of the same object that change by themselves, laid over
    detail when it is published. attributes: further facts for `status.attributes`.
    """

    kind: Kind
    hardware_id: str
    size: int
    capacity: int
    detail: Mapping[str, Json] = field(default_factory=dict)
    readings: Mapping[str, Json] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.capacity <= self.size:
            raise ValueError(f"{self.kind} {self.hardware_id}: capacity {self.capacity} is not within size {self.size}")


@dataclass(frozen=True, slots=True)
class Inventory:
    """All hardware of the node. A kind whose probe failed keeps what it had and stands in `failures`.

    unknown: kinds of which absence means nothing, because their probe failed or did not run yet.
    """

    hardware: tuple[Hardware, ...] = ()
    failures: Mapping[Kind, str] = field(default_factory=dict)
    unknown: frozenset[Kind] = frozenset(Kind)

    def of(self, kind: Kind) -> tuple[Hardware, ...]:
        return tuple(item for item in self.hardware if item.kind is kind)


def hardware_id(*parts: str) -> str:
    """A stable, printable identity of at most 128 characters; what had to be changed or cut ends in its hash."""
    text = ":".join(part.strip() for part in parts)
    safe = "".join(char if char in _HARDWARE_ID_SAFE else "_" for char in text)
    if safe == text and len(safe) <= HARDWARE_ID_LENGTH:
        return safe
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{safe[: HARDWARE_ID_LENGTH - 17]}-{digest}"


def printable(text: str | None, length: int = 253) -> str:
    """Text from firmware or a driver as the API takes it: one line, no control characters, at most `length`."""
    return " ".join("".join(char if char.isprintable() else " " for char in text or "").split())[:length]
