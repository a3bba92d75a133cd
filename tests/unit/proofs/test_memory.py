"""Memory walks: honest ones pass; missing, foreign, stale and changed memory is refused, with the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.digests import digest, u32
from hypermesh.proofs import ProofRefused, challenge, fill, memory, merkle, verify_memory
from hypermesh.proofs.challenges import memory_key, memory_samples, memory_start
from hypermesh.proofs.parameters import MEMORY_DEMO, MEMORY_PRODUCTION
from hypermesh.v1.proofs_pb2 import PROOF_KIND_SPACE, MemoryCommitment, MemoryParameters, MemoryProof

NODE, ASSET, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32
C = challenge("test-chain", b"beacon", NODE, 7)
SMALL = MemoryParameters(
    slab_bytes=1 << 20, min_slabs=1, block_kib=256, passes=4, steps=1 << 10, samples=40, deadline_ms=1000
)
SLABS = 10


def filled(node: bytes = NODE, asset: bytes = ASSET, params: MemoryParameters = SMALL, slabs: int = SLABS) -> bytearray:
    """All blocks of the first slabs, one after the other."""
    size = params.block_kib * 1024
    room = bytearray(slabs * params.slab_bytes)
    key = memory_key(node, asset, params)
    for number in range(len(room) // size):
        at = number * size
        fill.fill_block(key, number, params.block_kib, params.passes, memoryview(room)[at : at + size])
    return room


class Walked(NamedTuple):
    commitment: MemoryCommitment
    proof: MemoryProof

    def copy(self) -> Walked:
        commitment, proof = MemoryCommitment(), MemoryProof()
        commitment.CopyFrom(self.commitment)
        proof.CopyFrom(self.proof)
        return Walked(commitment, proof)


def walked(room: bytearray, c: bytes = C, params: MemoryParameters = SMALL, start: bytes | None = None) -> Walked:
    """The walk over whatever is in the room, committed and opened by SEED."""
    slabs, view = len(room) // params.slab_bytes, memoryview(room)
    states = memory.walk(
        start or memory_start(c, ASSET, slabs),
        lambda place: bytes(view[place * 64 : place * 64 + 64]),
        memory.labels(slabs, params),
        params.steps,
    )
    commitment = MemoryCommitment(asset=ASSET, slabs=slabs, root=memory.tree(states)[-1][0])
    return Walked(commitment, memory.open_walk(states, SEED, commitment, params))


@pytest.fixture(scope="module")
def room() -> bytearray:
    return filled()


@pytest.fixture(scope="module")
def whole(room: bytearray) -> Walked:
    return walked(room)


def verify(each: Walked, node: bytes = NODE, c: bytes = C, seed: bytes = SEED) -> None:
    verify_memory(node, c, seed, each.commitment, each.proof, SMALL)


def refused(each: Walked, node: bytes = NODE, c: bytes = C, seed: bytes = SEED) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify(each, node, c, seed)
    assert (caught.value.kind, caught.value.reason) == (PROOF_KIND_SPACE, "SpaceProofInvalid")
    return caught.value.message


def test_an_honest_walk_passes(whole: Walked) -> None:
    verify(whole)


def test_the_definition_gives_the_same_root(whole: Walked, room: bytearray) -> None:
    """Written out once more: blocks in order, framed hashes, a recursive tree."""
    import hashlib

    key = digest("memory/key", NODE, ASSET, u32(256) + u32(4))
    assert room[5 << 18 : 6 << 18] == fill.block(key, 5, 256, 4)
    states = [digest("memory/start", C, ASSET, u32(SLABS))]
    while len(states) < 1 << 10:
        at = 64 * (int.from_bytes(states[-1][:8], "little") % (len(room) // 64))
        states.append(hashlib.sha256(states[-1] + room[at : at + 64]).digest())

    def tree(first: int, count: int) -> bytes:
        if count == 1:
            return digest("work/leaf", u32(first), states[first])
        return digest("work/node", tree(first, count // 2), tree(first + count // 2, count // 2))

    assert tree(0, 1 << 10) == whole.commitment.root
    assert whole.commitment.root.hex() == "c9ddbd2f9cbd9e20b1485044abda0a9407d21ad694f6a629942b6a2fe7a5782a"


def test_the_demo_size_passes_and_fits_a_transaction() -> None:
    params = MemoryParameters()
    params.CopyFrom(MEMORY_DEMO)
    params.min_slabs = 1
    room = filled(params=params, slabs=1)
    commitment, proof = walked(room, params=params)
    verify_memory(NODE, C, SEED, commitment, proof, params)
    assert proof.ByteSize() < 64 * 1024


def test_the_production_size_fits_a_transaction() -> None:
    """Sized by counting: production walks take seconds."""
    samples = memory_samples(SEED, MemoryCommitment(asset=ASSET, slabs=1, root=bytes(32)), MEMORY_PRODUCTION)
    depth = MEMORY_PRODUCTION.steps.bit_length() - 1
    proof = MemoryProof(asset=ASSET)
    for index in samples:
        apart = merkle.meeting_level(index)
        near, far = [bytes(32)] * apart, [bytes(32)] * (depth - apart - 1)
        proof.openings.add(state=bytes(32), before=near, after=near, above=far)
    assert proof.ByteSize() < 256 * 1024


# ---- Not the memory that was asked for -------------------------------------------------------------------------------


def test_a_tenth_of_the_blocks_missing_is_refused(room: bytearray) -> None:
    holes = bytearray(room)
    for number in range(0, len(holes) >> 18, 10):
        holes[number << 18 : (number + 1) << 18] = bytes(1 << 18)
    assert "isn't in the committed walk" in refused(walked(holes))


def test_memory_filled_for_another_node_is_refused() -> None:
    assert "filled for another key" in refused(walked(filled(node=b"\xff" * 32)))


def test_memory_filled_for_another_asset_is_refused() -> None:
    assert "filled for another key" in refused(walked(filled(asset=b"\xff" * 32)))


def test_a_walk_of_another_epoch_is_refused(room: bytearray) -> None:
    stale = walked(room, c=challenge("test-chain", b"beacon", NODE, 6))
    assert "doesn't begin at the epoch's challenge" in refused(stale)


def test_the_walk_of_another_node_is_refused(whole: Walked) -> None:
    assert "filled for another key" in refused(whole, node=b"\xff" * 32)


def test_a_start_of_ones_own_choice_is_refused(room: bytearray) -> None:
    assert "doesn't begin" in refused(walked(room, start=bytes(32)))


def test_more_slabs_than_were_walked_are_refused(whole: Walked) -> None:
    more = whole.copy()
    more.commitment.slabs += 1
    assert "doesn't begin" in refused(more)
    for slabs in (0, 2**32 - 1):
        more.commitment.slabs = slabs
        assert "can be proven" in refused(more)


def test_a_cut_walk_with_the_right_ends_is_refused(room: bytearray) -> None:
    """Skipping the walk: states made up from the middle on, all else honest."""
    view = memoryview(room)
    states = memory.walk(
        memory_start(C, ASSET, SLABS),
        lambda place: bytes(view[place * 64 : place * 64 + 64]),
        memory.labels(SLABS, SMALL),
        SMALL.steps // 2,
    )
    states += [digest("made/up", u32(index)) for index in range(SMALL.steps // 2)]
    commitment = MemoryCommitment(asset=ASSET, slabs=SLABS, root=memory.tree(states)[-1][0])
    proof = memory.open_walk(states, SEED, commitment, SMALL)
    assert "isn't in the committed walk" in refused(Walked(commitment, proof))


def test_another_seed_or_root_is_refused(whole: Walked) -> None:
    refused(whole, seed=b"\xff" * 32)
    other = whole.copy()
    other.commitment.root = b"\xff" * 32
    refused(other)


# ---- Every field -----------------------------------------------------------------------------------------------------

Change = Callable[[MemoryProof], object]
CHANGES: list[tuple[str, Change, str]] = [
    ("no asset", lambda p: p.ClearField("asset"), "another asset"),
    ("no openings", lambda p: p.ClearField("openings"), "opens 0 steps: 41"),
    ("an opening missing", lambda p: p.openings.pop(), "opens 40 steps"),
    ("an opening more", lambda p: p.openings.append(p.openings[0]), "opens 42 steps"),
    ("openings reversed", lambda p: p.openings.reverse(), "hashes:|begin|committed walk"),
    ("no state", lambda p: p.openings[3].ClearField("state"), "state of opening 3 has 0 bytes: 32"),
    ("other state", lambda p: setattr(p.openings[3], "state", bytes(32)), "isn't in the committed walk"),
    ("other first state", lambda p: setattr(p.openings[0], "state", bytes(32)), "doesn't begin"),
    ("path cut", lambda p: p.openings[3].above.pop(), "a path of opening 3 has"),
    ("path longer", lambda p: p.openings[3].before.append(bytes(32)), "a path of opening 3 has"),
    ("after longer", lambda p: p.openings[3].after.append(bytes(32)), "a path of opening 3 has"),
    ("short sibling", lambda p: p.openings[3].above.__setitem__(0, bytes(31)), "path hash of opening 3 has 31"),
    ("other sibling", lambda p: p.openings[3].above.__setitem__(0, bytes(32)), "isn't in the committed walk"),
]


@pytest.mark.parametrize(("change", "message"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_changed_proof_is_refused_with_its_cause(whole: Walked, change: Change, message: str) -> None:
    import re

    each = whole.copy()
    change(each.proof)
    assert re.search(message, refused(each))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_the_serialized_proof_is_refused(whole: Walked, data: st.DataObject) -> None:
    from google.protobuf.message import DecodeError

    raw = bytearray(whole.proof.SerializeToString(deterministic=True))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        proof = MemoryProof.FromString(bytes(raw))
    except DecodeError:
        return
    refused(Walked(whole.commitment, proof))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_is_refused(garbage: bytes) -> None:
    from google.protobuf.message import DecodeError

    commitment = MemoryCommitment(asset=ASSET, slabs=1, root=bytes(32))
    try:
        proof = MemoryProof.FromString(garbage)
    except DecodeError:
        proof = MemoryProof(asset=garbage)
    refused(Walked(commitment, proof))
