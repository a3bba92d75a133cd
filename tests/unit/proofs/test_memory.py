"""Proofs of memory, field by field: the definition written out once more, and every change refused with its cause.

Who claims what it hasn't is played in tests/unit/adversary/test_memory_cheats.py.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest

from hypermesh.digests import digest, preimage, u32, u64
from hypermesh.proofs import ProofRefused, challenge, fill, memory, verify_memory
from hypermesh.proofs.parameters import MEMORY_DEMO, MEMORY_PRODUCTION
from hypermesh.v1.proofs_pb2 import PROOF_KIND_SPACE, MemoryCommitment, MemoryParameters, MemoryPath, MemoryProof

from ...adversary.memories import Claim, block

NODE, ASSET, SEED = b"\1" * 32, b"\2" * 32, b"\3" * 32
C = challenge("test-chain", b"beacon", NODE, 7)
SMALL = MemoryParameters(slab_bytes=1 << 20, block_kib=256, passes=4, labels=16, samples=40, deadline_ms=1000)
SLABS = 3


@pytest.fixture
def whole() -> Claim:
    return Claim(NODE, ASSET, C, SLABS, SMALL, lambda number: block(NODE, ASSET, number, SMALL))


def refused(commitment: MemoryCommitment, proof: MemoryProof, node: bytes = NODE, c: bytes = C) -> str:
    with pytest.raises(ProofRefused) as caught:
        verify_memory(node, c, SEED, commitment, proof, SMALL)
    assert (caught.value.kind, caught.value.reason) == (PROOF_KIND_SPACE, "SpaceProofInvalid")
    return caught.value.message


def test_an_honest_memory_passes(whole: Claim) -> None:
    verify_memory(NODE, C, SEED, whole.commitment, whole.proof(SEED), SMALL)


def test_the_definition_gives_the_same_root(whole: Claim) -> None:
    """Written out once more: keys, places and hashes framed by hand, a recursive tree."""
    key = digest("memory/key", NODE, ASSET, u32(256), u32(4))
    question = digest("memory/question", C, ASSET, u32(SLABS))

    def answered(number: int) -> bytes:
        if number >= SLABS * 4:
            return bytes(32)
        bytes_of = fill.block(key, number, 256, 4)
        drawn = hashlib.shake_256(preimage("memory/places", question, u64(number))).digest(32)
        places = [place % 4096 for place in struct.unpack(">16H", drawn)]
        read = b"".join(bytes_of[place * 64 : place * 64 + 64] for place in places)
        return digest("memory/answer", question, u64(number), read)

    def tree(first: int, count: int) -> bytes:
        if count == 1:
            return answered(first)
        return digest("work/node", tree(first, count // 2), tree(first + count // 2, count // 2))

    assert tree(0, 16) == whole.commitment.root
    assert whole.commitment.root.hex() == "1350b18800fd1c08a105039344e8d3e945258f4d937a3f4b134fab04ce7c6d2b"


def test_a_single_block_is_a_tree_of_one() -> None:
    params = MemoryParameters()
    params.CopyFrom(SMALL)
    params.block_kib = 1024
    one = Claim(NODE, ASSET, C, 1, params, lambda number: block(NODE, ASSET, number, params))
    assert not one.proof(SEED).paths[0].siblings
    verify_memory(NODE, C, SEED, one.commitment, one.proof(SEED), params)


def test_proofs_fit_a_transaction() -> None:
    """Sized by counting, at the largest memory there may be."""
    for params in (MEMORY_DEMO, MEMORY_PRODUCTION):
        depth = (memory.MAX_BLOCKS - 1).bit_length()
        path = MemoryPath(siblings=[bytes(32)] * depth)
        assert MemoryProof(asset=ASSET, paths=[path] * params.samples).ByteSize() < 256 * 1024


@pytest.mark.parametrize("slabs", [0, 2**32 - 1])
def test_sizes_that_no_proof_is_for(whole: Claim, slabs: int) -> None:
    proof = whole.proof(SEED)
    whole.commitment.slabs = slabs
    assert "can be proven" in refused(whole.commitment, proof)


def test_another_node_challenge_or_seed_is_refused(whole: Claim) -> None:
    proof = whole.proof(SEED)
    assert "another key" in refused(whole.commitment, proof, node=b"\xff" * 32)
    assert "another epoch" in refused(whole.commitment, proof, c=bytes(32))
    assert refused(whole.commitment, whole.proof(b"\xff" * 32))


Change = Callable[[MemoryProof], object]
CHANGES: list[tuple[str, Change, str]] = [
    ("no asset", lambda p: p.ClearField("asset"), "another asset"),
    ("no paths", lambda p: p.ClearField("paths"), "opens 0 blocks: 40"),
    ("a path missing", lambda p: p.paths.pop(), "opens 39 blocks"),
    ("a path more", lambda p: p.paths.append(p.paths[0]), "opens 41 blocks"),
    ("paths reversed", lambda p: p.paths.reverse(), "did not answer|same way"),
    ("path cut", lambda p: p.paths[3].siblings.pop(), "path 3 has 3 hashes: 4"),
    ("path longer", lambda p: p.paths[3].siblings.append(bytes(32)), "path 3 has 5 hashes"),
    ("short hash", lambda p: p.paths[3].siblings.__setitem__(0, bytes(31)), "hash of path 3 has 31"),
    ("other hash", lambda p: p.paths[3].siblings.__setitem__(0, bytes(32)), "did not answer|same way"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_every_change_is_refused_and_named(whole: Claim, change: Change, message: str) -> None:
    proof = whole.proof(SEED)
    change(proof)
    assert any(part in refused(whole.commitment, proof) for part in message.split("|"))


def test_a_short_root_or_asset_is_refused(whole: Claim) -> None:
    proof = whole.proof(SEED)
    for field in ("root", "asset"):
        short = MemoryCommitment()
        short.CopyFrom(whole.commitment)
        setattr(short, field, b"short")
        assert "bytes: 32 are needed" in refused(short, proof)
