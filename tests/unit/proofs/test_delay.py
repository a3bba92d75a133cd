"""Proof of time: 1,000 squarings done again in plain Python, and every other form or byte refused."""

from __future__ import annotations

from collections.abc import Callable

import chiavdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.proofs import ProofRefused, challenge, delay, verify_time
from hypermesh.proofs.challenges import time_seed
from hypermesh.v1.proofs_pb2 import PROOF_KIND_TIME, ProofParameters, TimeProof

C = challenge("test-chain", b"beacon", bytes(range(32)), 7)
FORM = delay.FORM_BYTES


@pytest.fixture(scope="module")
def output(small: ProofParameters) -> bytes:
    result: bytes = chiavdf.prove(time_seed(C), delay.GENERATOR, small.vdf_discriminant_bits, small.vdf_iterations, "")
    return result


def refused(output: bytes, small: ProofParameters, c: bytes = C, iterations: int = 1000) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify_time(c, TimeProof(iterations=iterations, output=output), small)
    assert (caught.value.kind, caught.value.reason) == (PROOF_KIND_TIME, "TimeProofInvalid")
    return caught.value.message


# ---- The class group, written out (Cohen, "A Course in Computational Algebraic Number Theory", 5.4) ---------------

Form = tuple[int, int, int]


def reduced(a: int, b: int, c: int) -> Form:
    while True:
        steps = (a - b) // (2 * a)
        b, c = b + 2 * a * steps, (a * steps + b) * steps + c
        if a < c or (a == c and b >= 0):
            return a, b, c
        a, b, c = c, -b, a


def squared(form: Form) -> Form:
    a, b, c = form
    mu = pow(b, -1, a) * c % a
    return reduced(a * a, b - 2 * a * mu, mu * mu - (b * mu - c) // a)


def test_the_output_is_the_generator_squared_a_thousand_times(output: bytes, small: ProofParameters) -> None:
    encoded = chiavdf.create_discriminant(time_seed(C), small.vdf_discriminant_bits)
    discriminant = int(encoded, 16)
    assert (discriminant.bit_length(), discriminant % 8) == (1024, 1)
    assert pow(2, -discriminant - 1, -discriminant) == 1, "the discriminant must be (minus) a prime"
    form = (2, 1, (1 - discriminant) // 8)
    for _ in range(small.vdf_iterations):
        form = squared(form)
        assert form[1] ** 2 - 4 * form[0] * form[2] == discriminant
    a, b = (int.from_bytes(part, "big", signed=True) for part in chiavdf.bqfc_deserialize(encoded, output[:FORM]))
    assert (a, b) == form[:2]


def test_an_honest_proof_passes(output: bytes, small: ProofParameters) -> None:
    verify_time(C, TimeProof(iterations=1000, output=output), small)


def test_it_is_fixed_forever(output: bytes, small: ProofParameters) -> None:
    """The delay function is deterministic; so is chiavdf's proof of it."""
    assert output.hex() == (
        "0000caebe1d8829d3263bad18ac11d2742ab73ba07a4c42d3310a76e34fb3dfe80ea26348a9304fb3ac02c29fd523a3e0fda"
        "c44a15ff6035f1116298b634dc2de644f56038af8ebbb395ffd0e335acdbd7fe2582f3a7e3ff85970749314ccbe8f5600100"
        "02004d71a046265508f7aa6ea7049100dbe39fd67200e59f2b5b592af2425468cfa80976a4359b2a0fe93c867ed8797ad813"
        "a1e6603bd86294b9e0c3d9a53336f20a69354d3b114090d5252cd9badd6a17b7efa7df7fe77afb2cafff8692ce1853280100"
    )


def test_another_node_epoch_or_beacon_is_refused(output: bytes, small: ProofParameters) -> None:
    for c in (
        challenge("test-chain", b"beacon", b"\xff" * 32, 7),
        challenge("test-chain", b"beacon", bytes(range(32)), 8),
        challenge("test-chain", b"other", bytes(range(32)), 7),
    ):
        refused(output, small, c)


@pytest.mark.parametrize("iterations", [0, 1, 999, 1001, 2**64 - 1])
def test_other_iterations_are_refused(output: bytes, small: ProofParameters, iterations: int) -> None:
    assert "ask for 1000" in refused(output, small, iterations=iterations)
    other = ProofParameters()
    other.CopyFrom(small)
    other.vdf_iterations = iterations
    if 0 < iterations < 2000:
        assert "doesn't verify" in refused(output, other, iterations=iterations)


SPECIAL = {
    "identity": b"\x04" + bytes(99),
    "generator": delay.GENERATOR,
    "generator with a tail": b"\x08" + b"\x01" * 99,
    "unused flag": b"\x10" + bytes(99),
}
NO_FORM = {
    "zeros": bytes(FORM),
    "a too large": b"\0\0" + b"\xff" * 64 + bytes(34),
    "t too large": b"\0\0" + b"\xff" * 64 + b"\1" + bytes(33),
    "g size outside": b"\0\xff" + b"\1" * 98,
    "a = 1 unflagged": b"\0\0\1" + bytes(97),
}


@pytest.mark.parametrize("name", [*SPECIAL, *NO_FORM])
def test_degenerate_forms_are_refused(output: bytes, small: ProofParameters, name: str) -> None:
    form, message = (SPECIAL[name], "special form") if name in SPECIAL else (NO_FORM[name], "no forms")
    for changed in (form + output[FORM:], output[:FORM] + form, form + form):
        assert message in refused(changed, small)


CUTS: list[Callable[[bytes], bytes]] = [
    lambda o: b"",
    lambda o: o[:FORM],
    lambda o: o[:-1],
    lambda o: o + b"\0",
    lambda o: o + bytes(1 << 20),
]


@pytest.mark.parametrize("cut", CUTS)
def test_other_lengths_are_refused(output: bytes, small: ProofParameters, cut: Callable[[bytes], bytes]) -> None:
    assert "200 are needed" in refused(cut(output), small)


def test_output_and_witness_swapped_are_refused(output: bytes, small: ProofParameters) -> None:
    assert "doesn't verify" in refused(output[FORM:] + output[:FORM], small)


def test_unreduced_forms_are_refused(small: ProofParameters) -> None:
    """b + 2a names the same element as b; chiavdf's verification takes it, so the output would not be unique.

    This challenge's output has g = 2 (byte 98), where the multiple b₀ (byte 99) is free for that check.
    """
    c = b"\1" * 32
    params = ProofParameters(vdf_iterations=2000, vdf_discriminant_bits=1024)
    output = chiavdf.prove(time_seed(c), delay.GENERATOR, 1024, 2000, "")
    verify_time(c, TimeProof(iterations=2000, output=output), params)
    assert output[98:100] == b"\2\0"
    same = output[:99] + b"\4"
    encoded = chiavdf.create_discriminant(time_seed(c), 1024)
    assert chiavdf.verify_wesolowski(encoded, delay.GENERATOR, same, output[FORM:], 2000)
    assert "no forms" in refused(same + output[FORM:], params, c, 2000)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2 * FORM * 8 - 1))
def test_any_flipped_bit_is_refused(output: bytes, small: ProofParameters, bit: int) -> None:
    changed = bytearray(output)
    changed[bit // 8] ^= 1 << bit % 8
    refused(bytes(changed), small)
