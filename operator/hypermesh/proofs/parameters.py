"""Proof parameters: fixed at genesis, equal for all nodes. Two sets, and the check that any set must pass.

DEMO makes a laptop win all tickets within a part of an epoch; it shows the machinery and resists nobody who tries.
PRODUCTION is what the numbers of docs/concepts/proofs.md are about. Both are messages: copy before you change.
"""

from __future__ import annotations

from hypermesh.v1.proofs_pb2 import MemoryParameters, ProofParameters

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

MEMORY_DEMO = MemoryParameters(
    slab_bytes=16 << 20,
    block_kib=256,
    passes=6,
    labels=64,
    samples=128,
    deadline_ms=15_000,
)

MEMORY_PRODUCTION = MemoryParameters(
    slab_bytes=64 << 20,
    block_kib=256,
    passes=6,
    labels=64,
    samples=264,
    deadline_ms=3_000,
)


def with_memory(base: ProofParameters, memory: MemoryParameters) -> ProofParameters:
    """`base` on a chain that asks for memory, too."""
    asked = ProofParameters()
    asked.CopyFrom(base)
    asked.memory.CopyFrom(memory)
    return asked


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
# Below 256 KiB and 4 passes Argon2d yields to trading time for memory; few labels or samples show next to nothing.
_MEMORY_RANGES = {
    "slab_bytes": (1 << 20, 1 << 30),
    "block_kib": (256, 4_096),
    "passes": (4, 256),
    "labels": (16, 1_024),
    "samples": (32, 1_024),
    "deadline_ms": (1_000, 43_200_000),
}
_MEMORY_DEPTH = 24
_MEMORY_WORK_KIB = 4 << 20
"""KiB of Argon2d, all passes counted, that a verifier may be made to compute for one proof: two seconds."""


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
    if params.HasField("memory"):
        _validate_memory(params.memory, params.epoch_ms)


def _validate_memory(params: MemoryParameters, epoch_ms: int) -> None:
    for name, (low, high) in _MEMORY_RANGES.items():
        value = getattr(params, name)
        if not low <= value <= high:
            raise ParametersInvalid(f"memory parameter {name} is {value}: choose from {low} to {high}")
    for name in ("slab_bytes", "block_kib"):
        value = getattr(params, name)
        if value & (value - 1):
            raise ParametersInvalid(f"memory parameter {name} is {value}: choose a power of two")
    if params.deadline_ms > epoch_ms // 2:
        raise ParametersInvalid(
            f"memory parameter deadline_ms is {params.deadline_ms}: choose at most half of epoch_ms, {epoch_ms}"
        )
    path = 34 * _MEMORY_DEPTH + 4
    if path * params.samples > 768 * 1024:
        raise ParametersInvalid(
            f"a memory proof of {params.samples} paths with up to {path} bytes each doesn't fit a transaction: "
            "lower samples"
        )
    if params.samples * params.block_kib * params.passes > _MEMORY_WORK_KIB:
        raise ParametersInvalid(
            f"a memory proof makes {params.samples} blocks of {params.block_kib} KiB in {params.passes} passes again: "
            "lower samples, passes or block_kib"
        )
