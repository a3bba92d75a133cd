"""Proof of work: a second, plain computation gives the same roots, and every change of a proof is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.digests import digest, u32
from hypermesh.proofs import ProofRefused, matrices, products, verify_work, work_key, work_samples
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1.proofs_pb2 import PROOF_KIND_WORK, ProofParameters, WorkProof
from hypermesh_agent.proofs import opencl

C, DEVICE, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32


def signed(rows: bytes) -> list[int]:
    return list(struct.unpack(f"{len(rows)}b", rows))


def plain_root(c: bytes, device: bytes, n: int, tile: int, rounds: int) -> bytes:
    """The definition, in Python integers and recursion, sharing nothing with the prover but ChaCha20 and SHA-256."""
    key = digest("work/key", c, device, u32(n) + u32(tile) + u32(rounds))
    roots = []
    for _ in range(rounds):
        left = signed(matrices.rows(key, matrices.Factor.LEFT, n, 0, n))
        right = signed(matrices.rows(key, matrices.Factor.RIGHT_TRANSPOSED, n, 0, n))
        product = [[sum(left[i * n + k] * right[j * n + k] for k in range(n)) for j in range(n)] for i in range(n)]

        def leaf(index: int, product: list[list[int]] = product) -> bytes:
            row, column = index // (n // tile) * tile, index % (n // tile) * tile
            values = [product[row + i][column + j] for i in range(tile) for j in range(tile)]
            return digest("work/leaf", u32(index), struct.pack(f"<{tile * tile}i", *values))

        def tree(first: int, count: int, leaf: Callable[[int], bytes] = leaf) -> bytes:
            if count == 1:
                return leaf(first)
            half = count // 2
            return digest("work/node", tree(first, half), tree(first + half, half))

        roots.append(tree(0, (n // tile) ** 2))
        key = digest("work/next", key, roots[-1])
    return digest("work/root", *roots)


@pytest.fixture(scope="module")
def root(small: ProofParameters) -> bytes:
    return products.commit(C, DEVICE, small, products.multiply_numpy)


@pytest.fixture(scope="module")
def whole(small: ProofParameters, root: bytes) -> WorkProof:
    return products.open_work(C, DEVICE, SEED, root, small, products.multiply_numpy)


@pytest.fixture
def proof(whole: WorkProof) -> WorkProof:
    copy = WorkProof()
    copy.CopyFrom(whole)
    return copy


def refused(
    proof: WorkProof, root: bytes, params: ProofParameters, c: bytes = C, device: bytes = DEVICE, seed: bytes = SEED
) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify_work(c, device, seed, root, proof, params)
    assert (caught.value.kind, caught.value.reason) == (PROOF_KIND_WORK, "WorkProofInvalid")
    return caught.value.message


def test_the_definition_gives_the_same_root(root: bytes) -> None:
    assert root == plain_root(C, DEVICE, 64, 8, 3)


def test_the_root_is_fixed_forever(root: bytes) -> None:
    assert root.hex() == "276cfe3148b514d7e40c359b0905a300545a74c162f45801ce167a0dbfc6bb66"


@pytest.mark.parametrize(("n", "tile", "rounds"), [(64, 1, 1), (64, 64, 2), (128, 4, 1)])
def test_other_shapes(n: int, tile: int, rounds: int) -> None:
    params = ProofParameters(work_n=n, work_tile=tile, work_rounds=rounds, work_samples=5)
    root = products.commit(C, DEVICE, params, products.multiply_numpy)
    assert root == plain_root(C, DEVICE, n, tile, rounds)
    verify_work(
        C, DEVICE, SEED, root, products.open_work(C, DEVICE, SEED, root, params, products.multiply_numpy), params
    )


def test_honest_work_passes(proof: WorkProof, root: bytes, small: ProofParameters) -> None:
    verify_work(C, DEVICE, SEED, root, proof, small)


def test_the_demo_size_passes_and_fits_a_transaction() -> None:
    root = products.commit(C, DEVICE, DEMO, products.multiply_numpy)
    proof = products.open_work(C, DEVICE, SEED, root, DEMO, products.multiply_numpy)
    verify_work(C, DEVICE, SEED, root, proof, DEMO)
    assert len(proof.SerializeToString()) < 64 * 1024


def test_large_blocks_are_computed_in_parts(
    monkeypatch: pytest.MonkeyPatch, small: ProofParameters, root: bytes
) -> None:
    monkeypatch.setattr(products, "_BLOCK_ROWS", 16)
    assert products.commit(C, DEVICE, small, products.multiply_numpy) == root


@pytest.mark.parametrize("extreme", [(-128, -128), (-128, 127), (127, 127)])
def test_numpy_is_exact_at_the_extremes(extreme: tuple[int, int]) -> None:
    """2048 products of ± 2¹⁴: past float32's 2²⁴, so an unchunked product would round."""
    left, right = (numpy.full((2, 2048), value, numpy.int8) for value in extreme)
    right[1, 0] += 1 if extreme[1] < 0 else -1
    expected = left.astype(numpy.int64) @ right.astype(numpy.int64).T
    assert (products.multiply_numpy(left, right) == expected).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_numpy_is_exact_on_random_factors(seed: int) -> None:
    random = numpy.random.default_rng(seed)
    left, right = (random.integers(-128, 128, (16, 2048), numpy.int8) for _ in range(2))
    assert (products.multiply_numpy(left, right) == left.astype(numpy.int64) @ right.astype(numpy.int64).T).all()


# ---- Wrong challenge, device, seed, commitment ---------------------------------------------------------------------


def test_another_challenge_is_refused(proof: WorkProof, root: bytes, small: ProofParameters) -> None:
    assert "isn't the product" in refused(proof, root, small, c=b"\xff" * 32)


def test_another_device_is_refused(proof: WorkProof, root: bytes, small: ProofParameters) -> None:
    assert "another device" in refused(proof, root, small, device=b"\xff" * 32)
    proof.device = b"\xff" * 32
    assert "another device" in refused(proof, root, small)
    assert "the seed asks for" in refused(proof, root, small, device=b"\xff" * 32)


def test_another_seed_is_refused(proof: WorkProof, root: bytes, small: ProofParameters) -> None:
    assert "the seed asks for" in refused(proof, root, small, seed=b"\xff" * 32)


def test_another_commitment_is_refused(proof: WorkProof, small: ProofParameters) -> None:
    assert "committed root" in refused(proof, b"\xff" * 32, small)
    assert "committed root" in refused(proof, b"", small)


@pytest.mark.parametrize("field", ["work_n", "work_tile", "work_rounds", "work_samples"])
def test_other_parameters_are_refused(proof: WorkProof, root: bytes, small: ProofParameters, field: str) -> None:
    other = ProofParameters()
    other.CopyFrom(small)
    setattr(other, field, getattr(other, field) * 2)
    refused(proof, root, other)


def test_faked_work_is_caught_by_a_later_seed(small: ProofParameters) -> None:
    """A prover who computes only half of each product is caught: 12 samples leave him a chance of 2⁻¹²."""

    def lazy(left: products.Int8, right: products.Int8) -> products.Int32:
        whole = products.multiply_numpy(left, right)
        whole[:, whole.shape[1] // 2 :] = 0
        return whole

    root = products.commit(C, DEVICE, small, lazy)
    proof = products.open_work(C, DEVICE, SEED, root, small, lazy)
    assert "isn't the product" in refused(proof, root, small)


def test_rounds_cannot_be_computed_out_of_order(small: ProofParameters) -> None:
    """Keys of later rounds follow from earlier roots: reusing round 0's product in all rounds is caught."""
    first = work_key(C, DEVICE, small)

    def repeating(left: products.Int8, right: products.Int8) -> products.Int32:
        a, b = (
            numpy.frombuffer(matrices.rows(first, factor, 64, 0, 64), numpy.int8).reshape(64, 64)
            for factor in matrices.Factor
        )
        return products.multiply_numpy(a, b)

    root = products.commit(C, DEVICE, small, repeating)
    proof = products.open_work(C, DEVICE, SEED, root, small, repeating)
    assert {round_number for round_number, _ in work_samples(SEED, DEVICE, root, small)} > {0}
    assert "isn't the product" in refused(proof, root, small)


# ---- Every field ---------------------------------------------------------------------------------------------------

Change = Callable[[WorkProof], object]
CHANGES: list[tuple[str, Change, str]] = [
    ("no device", lambda p: p.ClearField("device"), "another device"),
    ("no roots", lambda p: p.ClearField("round_roots"), "0 rounds: 3"),
    ("a root missing", lambda p: p.round_roots.pop(), "2 rounds: 3"),
    ("a root more", lambda p: p.round_roots.append(bytes(32)), "4 rounds: 3"),
    ("short root", lambda p: p.round_roots.__setitem__(1, bytes(31)), "root of round 1 has 31 bytes"),
    ("long root", lambda p: p.round_roots.__setitem__(1, bytes(33)), "root of round 1 has 33 bytes"),
    ("other root", lambda p: p.round_roots.__setitem__(1, bytes(32)), "committed root"),
    ("roots swapped", lambda p: p.round_roots.reverse(), "committed root"),
    ("no openings", lambda p: p.ClearField("openings"), "opens 0 tiles: the seed samples 12"),
    ("an opening missing", lambda p: p.openings.pop(), "opens 11 tiles"),
    ("an opening more", lambda p: p.openings.append(p.openings[0]), "opens 13 tiles"),
    ("openings reversed", lambda p: p.openings.reverse(), "the seed asks for"),
    ("other round", lambda p: setattr(p.openings[0], "round", (p.openings[0].round + 1) % 3), "the seed asks for"),
    ("round outside", lambda p: setattr(p.openings[0], "round", 2**32 - 1), "the seed asks for"),
    ("other tile", lambda p: setattr(p.openings[0], "tile", (p.openings[0].tile + 1) % 64), "the seed asks for"),
    ("tile outside", lambda p: setattr(p.openings[0], "tile", 2**32 - 1), "the seed asks for"),
    ("no values", lambda p: p.openings[2].ClearField("values"), "tile of opening 2 has 0 bytes: 256"),
    ("values cut", lambda p: setattr(p.openings[2], "values", p.openings[2].values[:-1]), "has 255 bytes"),
    ("values longer", lambda p: setattr(p.openings[2], "values", p.openings[2].values + b"\0"), "has 257 bytes"),
    ("values huge", lambda p: setattr(p.openings[2], "values", bytes(1 << 20)), "has 1048576 bytes"),
    ("zero values", lambda p: setattr(p.openings[2], "values", bytes(256)), "isn't in the tree"),
    ("no path", lambda p: p.openings[2].ClearField("path"), "path of opening 2 has 0 hashes: 6"),
    ("path cut", lambda p: p.openings[2].path.pop(), "5 hashes: 6"),
    ("path longer", lambda p: p.openings[2].path.append(bytes(32)), "7 hashes: 6"),
    ("short sibling", lambda p: p.openings[2].path.__setitem__(0, bytes(31)), "path hash of opening 2 has 31"),
    ("other sibling", lambda p: p.openings[2].path.__setitem__(0, bytes(32)), "opening 2 isn't in the tree"),
    ("path reversed", lambda p: p.openings[2].path.reverse(), "opening 2 isn't in the tree"),
]


@pytest.mark.parametrize(("change", "message"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_changed_proof_is_refused_with_its_cause(
    proof: WorkProof, root: bytes, small: ProofParameters, change: Change, message: str
) -> None:
    change(proof)
    assert message in refused(proof, root, small)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_the_serialized_proof_is_refused(
    whole: WorkProof, root: bytes, small: ProofParameters, data: st.DataObject
) -> None:
    from google.protobuf.message import DecodeError

    raw = bytearray(whole.SerializeToString(deterministic=True))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        proof = WorkProof.FromString(bytes(raw))
    except DecodeError:
        return
    refused(proof, root, small)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_is_refused(small: ProofParameters, garbage: bytes) -> None:
    from google.protobuf.message import DecodeError

    try:
        proof = WorkProof.FromString(garbage)
    except DecodeError:
        proof = WorkProof(device=garbage, round_roots=[garbage])
    refused(proof, digest("work/root", *proof.round_roots), small, device=proof.device)


# ---- OpenCL --------------------------------------------------------------------------------------------------------


def test_opencl_devices_give_the_same_bits(small: ProofParameters, root: bytes) -> None:
    """On whatever OpenCL device is here: a GPU, or pocl's CPU device, which stands in for one."""
    names = [name for name, _ in opencl.devices()]
    if not names:
        pytest.skip("no OpenCL device: install the opencl extra (pocl) or a GPU driver to run this")
    for name in names:
        multiply = opencl.multiplier(name)
        assert products.commit(C, DEVICE, small, multiply) == root
        random = numpy.random.default_rng(1)
        left, right = random.integers(-128, 128, (32, 1024), numpy.int8), numpy.full((1024, 1024), -128, numpy.int8)
        assert (multiply(left, right) == left.astype(numpy.int64) @ right.astype(numpy.int64).T).all()


def test_a_missing_opencl_device_is_named() -> None:
    with pytest.raises(opencl.DeviceMissing, match=r"pci:ffff:00:00\.0"):
        opencl.multiplier("pci:ffff:00:00.0")
