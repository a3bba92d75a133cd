"""Kubernetes quantities, Caesar amounts and lease durations as exact integers, and back.

Text in specs -> integers in base units (millicores, bytes, grains, seconds) -> decisions and operations -> text in
status. Exact integer arithmetic only: the ledger compares these numbers.
Sources: apimachinery `resource.Quantity` (suffixes), Go `time.ParseDuration` (hours, minutes, seconds of it).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

GRAINS_PER_CAESAR: Final = 10**18
"""A grain is the integer unit of Caesar."""

MAX_CHARACTERS: Final = 64
"""No quantity needs more; Python itself gives up at some thousand digits, with another error."""
_QUANTITY: Final = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{1,3}))?", re.ASCII)
_SUFFIX: Final[dict[str, Fraction]] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
_BINARY: Final = tuple((1024**power, f"{letter}i") for power, letter in reversed([*enumerate("KMGTPE", start=1)]))
_CAESAR: Final = re.compile(r"(\d{1,18})(?:\.(\d{1,18}))?", re.ASCII)
_DURATION: Final = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
CORES: Final = "cores"
"""The one resource counted in thousandths; all others count bytes."""


class QuantityInvalid(ValueError):
    """Text that is no amount of what it should be; the message says what to write."""


def parse(resource: str, quantity: str | int) -> int:
    """Base units of a quantity of `resource`: millicores for cores, bytes for memory, storage and gpuMemory.

    A fraction of the base unit (1.1Gi is no whole number of bytes) counts as one more, as in Quantity.Value().
    Raises QuantityInvalid for text that is no quantity, or is negative.
    """
    scale = 1000 if resource == CORES else 1
    text = str(quantity).strip()
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        raise QuantityInvalid(f"{resource} {text[:40]!r} is no quantity: write 500m, 2, 512Mi or 1Gi")
    sign, digits, suffix, exponent = match.groups()
    factor = Fraction(10) ** int(exponent) if exponent else _SUFFIX[suffix or ""]
    amount = Fraction(digits if digits[0] != "." else f"0{digits}") * factor * scale
    if sign == "-" and amount:
        raise QuantityInvalid(f"{resource} {quantity} is negative: write a positive quantity")
    return -(-amount.numerator // amount.denominator)


def render(resource: str, amount: int) -> str:
    """The shortest exact quantity of `amount` base units: `2`, `1500m`, `1Gi`, `1000`."""
    if resource == CORES:
        return f"{amount}m" if amount % 1000 else str(amount // 1000)
    for size, suffix in _BINARY:
        if amount and amount % size == 0:
            return f"{amount // size}{suffix}"
    return str(amount)


def render_short(resource: str, amount: int) -> str:
    """For sentences: as `render`, but bytes that need it are rounded down to a tenth of their unit (`1.9Gi`)."""
    exact = render(resource, amount)
    if resource == CORES or len(exact) <= 6:
        return exact
    for size, suffix in _BINARY:
        if amount >= size:
            tenths = amount * 10 // size
            return f"{tenths // 10}.{tenths % 10}{suffix}" if tenths % 10 else f"{tenths // 10}{suffix}"
    return exact


def parse_caesar(text: str) -> int:
    """Grains of a decimal Caesar amount. Raises QuantityInvalid."""
    match = _CAESAR.fullmatch(text)
    if match is None:
        raise QuantityInvalid(
            f"{text[:40]!r} is no amount of Caesar: write 2 or 0.25, at most 18 digits after the point"
        )
    whole, fraction = match.groups()
    return int(whole) * GRAINS_PER_CAESAR + int((fraction or "").ljust(18, "0"))


def render_caesar(grains: int) -> str:
    """Decimal Caesar without trailing zeros."""
    whole, fraction = divmod(grains, GRAINS_PER_CAESAR)
    digits = f"{fraction:018d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_grains(text: str) -> int:
    """Grains as operations carry them: decimal digits without sign or leading zeros, up to 10^39."""
    if not (text.isascii() and text.isdigit() and len(text) <= 39 and str(int(text)) == text):
        raise QuantityInvalid(f"{text[:40]!r} is not a decimal number of grains")
    return int(text)


def hourly_price(whole: int, amount: int, capacity: int) -> int:
    """Grains an hour for `amount` of an asset of which all costs `whole`, rounded up: one rule for everybody.

    Raises QuantityInvalid for an asset without capacity.
    """
    if capacity <= 0:
        raise QuantityInvalid(f"a share of a capacity of {capacity} has no price: register what can be given")
    return -(-whole * amount // capacity)


def parse_duration(text: str) -> int:
    """Seconds of `24h`, `1h30m`, `90s`. Raises QuantityInvalid."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise QuantityInvalid(f"{text[:40]!r} is no duration: write hours, minutes and seconds such as 24h or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
