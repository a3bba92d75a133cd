"""What is to be enforced, and what can go wrong doing it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified reservation. id: 32 bytes; type: AssetType number; amount in base units (bytes or millicores)."""

    id: bytes
    type: int
    amount: int

    @property
    def name(self) -> str:
        """File and cgroup name: 64 hex digits."""
        return self.id.hex()


class EnforcementFailed(Exception):
    """A reservation could not be made real; nothing half-made is left. reason is CamelCase, for the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_name(text: str) -> bool:
    """Whether a file or cgroup carries the name of a grant."""
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
