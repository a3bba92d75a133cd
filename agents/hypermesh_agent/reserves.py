"""What the owner keeps back of the hardware: a fixed amount or a share of the capacity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reserve:
    """Either `amount` in base units or `percent` (0-100) of the whole, not both."""

    amount: int = 0
    percent: int = 0

    def of(self, whole: int) -> int:
        """Units kept back of `whole`, never more than it; a share is rounded up in favour of the machine."""
        return min(whole, max(self.amount, -(-whole * self.percent // 100)))


NOTHING = Reserve()


def spread(total: int, weights: list[int]) -> list[int]:
    """Parts of `total` in proportion to `weights`, in whole units, that sum to `total` exactly (largest remainders).

    All weights zero: everything in the first part; no weights: no parts.
    """
    whole = sum(weights)
    if not weights or whole <= 0:
        return [total, *([0] * (len(weights) - 1))] if weights else []
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: (-(total * weights[index] % whole), index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
