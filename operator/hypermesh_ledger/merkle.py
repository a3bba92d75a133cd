"""Proofs that the state holds a value, or that it holds none, checked by CometBFT's stock light client (`simple:v`).

    present   value -> ("asset/...", bucket tree) -> ("", store tree, leaf 2b) -> ("ledger", tree of stores) = app hash
    absent    listing of the bucket -> ("\\0B" + b, store tree, leaf 2b+1)     -> ("ledger", tree of stores) = app hash

Each step is one tree: the leaf made of the step's key and the hash of what comes from below, its place and its aunts;
its root goes up. Who checks compares key and bucket with what was asked: a proof of another key is a good proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from hypermesh_ledger import commitment
from hypermesh_ledger.commitment import Entries, Tree
from hypermesh_ledger.pb.tendermint.crypto import proof_pb2

OPERATION: Final = "simple:v"


@dataclass(frozen=True, slots=True)
class Step:
    """One tree on the way up."""

    key: bytes
    total: int
    index: int
    aunts: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Proof:
    """value is empty for absence, listing is empty for presence; the steps begin at the one that is not."""

    value: bytes
    listing: bytes
    steps: Sequence[Step]


_STORES: Final = Step(commitment.STORE_NAME, 1, 0, ())


def prove_present(tree: Tree, bucket: bytes, entries: Entries, index: int, value: Callable[[bytes], bytes]) -> Proof:
    """Of the bucket's entry at this index."""
    place = 2 * int.from_bytes(bucket, "big")
    leaves = [commitment.leaf(key, value_hash) for key, value_hash in entries]
    key = entries[index][0]
    within = Step(key, len(entries), index, aunts(leaves, index))
    return Proof(value(key), b"", (within, Step(b"", commitment.LEAVES, place, tree.aunts(place)), _STORES))


def prove_absent(tree: Tree, bucket: bytes, entries: Entries) -> Proof:
    """Of everything in the bucket that is not among its entries."""
    place = 2 * int.from_bytes(bucket, "big") + 1
    step = Step(commitment.LISTING + bucket, commitment.LEAVES, place, tree.aunts(place))
    return Proof(b"", commitment.listing(entries), (step, _STORES))


def aunts(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Of one leaf of an RFC 6962 tree, the leaf's sibling first."""
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return [*aunts(hashes[:split], index), commitment.tree_root(hashes[split:])]
    return [*aunts(hashes[split:], index - split), commitment.tree_root(hashes[:split])]


def climb(leaf_hash: bytes, total: int, index: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf and its aunts give. Raises ValueError when they fit no tree of that size."""
    if not 0 <= index < total:
        raise ValueError(f"leaf {index} of a tree of {total}")
    if total == 1:
        if path:
            raise ValueError("too many aunts")
        return leaf_hash
    if not path:
        raise ValueError("too few aunts")
    split = 1 << (total - 1).bit_length() - 1
    if index < split:
        left, right = climb(leaf_hash, split, index, path[:-1]), path[-1]
    else:
        left, right = path[-1], climb(leaf_hash, total - split, index - split, path[:-1])
    return sha256(b"\1" + left + right).digest()


def proof_ops(proof: Proof) -> proof_pb2.ProofOps:
    """The proof as CometBFT's RPC gives it."""
    below, operations = proof.value or proof.listing, []
    for step in proof.steps:
        hashed = commitment.leaf(step.key, commitment.value_hash(below))
        inner = proof_pb2.Proof(total=step.total, index=step.index, leaf_hash=hashed, aunts=step.aunts)
        data = proof_pb2.ValueOp(key=step.key, proof=inner).SerializeToString()
        operations.append(proof_pb2.ProofOp(type=OPERATION, key=step.key, data=data))
        below = climb(hashed, step.total, step.index, step.aunts)
    return proof_pb2.ProofOps(ops=operations)
