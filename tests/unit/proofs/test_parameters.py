"""Parameter sets: ours are valid, and every range is enforced by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hypermesh.proofs.parameters import DEMO, MEMORY_DEMO, MEMORY_PRODUCTION, PRODUCTION, ParametersInvalid, validate
from hypermesh.v1.proofs_pb2 import MemoryParameters, ProofParameters

PLAIN_FIELDS = [field.name for field in ProofParameters.DESCRIPTOR.fields if field.name != "memory"]


def with_memory(params: ProofParameters, memory: MemoryParameters) -> ProofParameters:
    both = ProofParameters()
    both.CopyFrom(params)
    both.memory.CopyFrom(memory)
    return both


@pytest.mark.parametrize("params", [DEMO, PRODUCTION])
def test_ours_are_valid(params: ProofParameters) -> None:
    validate(params)


@pytest.mark.parametrize(("params", "memory"), [(DEMO, MEMORY_DEMO), (PRODUCTION, MEMORY_PRODUCTION)])
def test_ours_are_valid_with_memory(params: ProofParameters, memory: MemoryParameters) -> None:
    validate(with_memory(params, memory))


@pytest.mark.parametrize("field", [field.name for field in MemoryParameters.DESCRIPTOR.fields])
@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_every_memory_field_has_a_range(field: str, value: int) -> None:
    params = with_memory(DEMO, MEMORY_DEMO)
    setattr(params.memory, field, value)
    with pytest.raises(ParametersInvalid, match=field):
        validate(params)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("slab_bytes", 3 << 20, "power of two"),
        ("block_kib", 300, "power of two"),
        ("deadline_ms", 31_000, "at most half of epoch_ms"),
        ("samples", 1024, "doesn't fit a transaction"),
        ("passes", 256, "lower samples, passes or block_kib"),
    ],
)
def test_memory_refusals_tell_what_to_do(field: str, value: int, message: str) -> None:
    params = with_memory(DEMO, MEMORY_DEMO)
    setattr(params.memory, field, value)
    with pytest.raises(ParametersInvalid, match=message):
        validate(params)


@pytest.mark.parametrize("field", PLAIN_FIELDS)
@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_every_field_has_a_range(field: str, value: int) -> None:
    if (field, value) == ("grace_epochs", 0):
        return  # no grace is a choice
    params = ProofParameters()
    params.CopyFrom(DEMO)
    wide = ProofParameters.DESCRIPTOR.fields_by_name[field].cpp_type == 4
    setattr(params, field, value << 32 if wide else value)
    with pytest.raises(ParametersInvalid, match=field):
        validate(params)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("work_n", 1000, "power of two"),
        ("work_tile", 12, "power of two"),
        ("space_required", 33, "at most space_challenges"),
        ("vdf_discriminant_bits", 512, "from 1024 to 1024"),
        ("space_min_k", 17, "from 18"),
        ("work_samples", 1024, "doesn't fit a transaction"),
    ],
)
def test_refusals_tell_what_to_do(field: str, value: int, message: str) -> None:
    params = ProofParameters()
    params.CopyFrom(PRODUCTION if field == "work_samples" else DEMO)
    setattr(params, field, value)
    with pytest.raises(ParametersInvalid, match=message):
        validate(params)


@pytest.mark.parametrize(("params", "in_a_million"), [(DEMO, 2), (PRODUCTION, 9)])
def test_an_honest_plot_misses_as_seldom_as_the_documentation_says(params: ProofParameters, in_a_million: int) -> None:
    """Each of J sub-challenges is answered with probability 1 - 1/e, independently: a binomial tail."""
    answered, challenges = 1 - math.exp(-1), params.space_challenges
    missed = sum(
        math.comb(challenges, count) * answered**count * (1 - answered) ** (challenges - count)
        for count in range(params.space_required)
    )
    assert round(missed * 1e6) == in_a_million
    assert f"{in_a_million} times" in (Path(__file__).parents[3] / "docs" / "concepts" / "proofs.md").read_text()
