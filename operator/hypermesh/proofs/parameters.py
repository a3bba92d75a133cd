"""Proof parameters: fixed at genesis, equal for all nodes. Two sets, and the check that any set must pass.

DEMO makes a laptop win all tickets in about a second; it shows the machinery and resists nobody who tries.
PRODUCTION is what the numbers of docs/concepts/proofs.md are about. Both are messages: copy before you change.
"""

from __future__ import annotations

from hypermesh.v1.proofs_pb2 import ProofParameters

DEMO = ProofParameters(
    epoch_ms=60_000,
    grace_epochs=2,
    space_min_k=18,
    space_challenges=32,
    space_required=8,
    work_n=1024,
    work_tile=8,
    work_rounds=8,
    work_samples=64,
    vdf_iterations=50_000,
    vdf_discriminant_bits=1024,
)

PRODUCTION = ProofParameters(
    epoch_ms=600_000,
    grace_epochs=2,
    space_min_k=32,
    space_challenges=64,
    space_required=24,
    work_n=4096,
    work_tile=8,
    work_rounds=8,
    work_samples=264,
    vdf_iterations=10_000_000,
    vdf_discriminant_bits=1024,
)

# chiapos plots k 18 … 50; 40 keeps one proof at 320 bytes. Below 2**17 an int32 sum of int8 products is exact.
_RANGES = {
    "epoch_ms": (1_000, 86_400_000),
    "grace_epochs": (0, 1_000),
    "space_min_k": (18, 40),
    "space_challenges": (1, 256),
    "space_required": (1, 256),
    "work_n": (64, 65_536),
    "work_tile": (1, 64),
    "work_rounds": (1, 64),
    "work_samples": (1, 1_024),
    "vdf_iterations": (1_000, 10_000_000_000),
    "vdf_discriminant_bits": (1_024, 1_024),
}
_POWERS_OF_TWO = ("work_n", "work_tile")


class ParametersInvalid(ValueError):
    """Proof parameters that no verifier could work with; the message names the field."""


def validate(params: ProofParameters) -> None:
    """Raise ParametersInvalid unless all verifiers accept `params`; run once at genesis."""
    for name, (low, high) in _RANGES.items():
        value = getattr(params, name)
        if not low <= value <= high:
            raise ParametersInvalid(f"proof parameter {name} is {value}: choose from {low} to {high}")
    for name in _POWERS_OF_TWO:
        value = getattr(params, name)
        if value & (value - 1):
            raise ParametersInvalid(f"proof parameter {name} is {value}: choose a power of two")
    if params.space_required > params.space_challenges:
        raise ParametersInvalid(
            f"proof parameter space_required is {params.space_required}: at most space_challenges, "
            f"{params.space_challenges}, can be answered"
        )
    opening = 4 * params.work_tile**2 + 34 * 2 * (params.work_n // params.work_tile).bit_length()
    if opening * params.work_samples > 768 * 1024:
        raise ParametersInvalid(
            f"a work proof of {params.work_samples} openings with {opening} bytes each doesn't fit a "
            "transaction: lower work_samples or work_tile"
        )
