"""Merkle trees and matrix factors against the plain definition and published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.digests import digest, u32
from hypermesh.proofs import matrices, merkle

HASHES = st.integers(0, 6).flatmap(
    lambda depth: st.lists(st.binary(min_size=32, max_size=32), min_size=1 << depth, max_size=1 << depth)
)


@given(st.integers(0, 2**32 - 1), st.binary(max_size=300))
def test_leaves_and_nodes_are_digests(index: int, values: bytes) -> None:
    assert merkle.leaf_hash(index, values) == digest("work/leaf", u32(index), values)
    left, right = digest("l", values), digest("r", values)
    assert merkle.node_hash(left, right) == digest("work/node", left, right)


@given(HASHES, st.data())
def test_a_path_leads_to_the_root_from_its_own_leaf_only(leaves: list[bytes], data: st.DataObject) -> None:
    levels = merkle.build(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.path(levels, index)
    assert merkle.root_of(leaves[index], index, path) == levels[-1][0]
    other = data.draw(st.integers(0, len(leaves) - 1))
    assert (merkle.root_of(leaves[index], other, path) == levels[-1][0]) == (other == index) or len(set(leaves)) < len(
        leaves
    )
    assert merkle.root_of(digest("other", leaves[index]), index, path) != levels[-1][0]


@pytest.mark.parametrize("count", [0, 3, 6, 7])
def test_trees_are_complete(count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        merkle.build([bytes(32)] * count)


def test_factors_are_the_rfc_8439_key_stream() -> None:
    """RFC 8439, appendix A.1, vectors 1, 2 (key, nonce 0; counters 0, 1) and 3 (key …01, counter 1)."""
    rows = matrices.rows(bytes(32), matrices.Factor.LEFT, 64, 0, 2)
    assert rows[:64].hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert rows[64:].hex() == (
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    third = matrices.rows(bytes(31) + b"\1", matrices.Factor.LEFT, 64, 1, 1)
    assert third.hex().startswith("3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a")


@given(st.sampled_from([64, 128, 1024]), st.sampled_from(list(matrices.Factor)), st.data())
def test_any_rows_are_a_slice_of_the_whole(n: int, factor: matrices.Factor, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, n - 1))
    count = data.draw(st.integers(0, n - first))
    whole = matrices.rows(b"k" * 32, factor, n, 0, n)
    assert matrices.rows(b"k" * 32, factor, n, first, count) == whole[first * n : (first + count) * n]


def test_factors_differ() -> None:
    left, right = (matrices.rows(bytes(32), factor, 64, 0, 64) for factor in matrices.Factor)
    assert left != right


@pytest.mark.parametrize(("n", "first", "count"), [(63, 0, 1), (64, 0, 65), (64, 64, 1), (64, -1, 1), (1 << 20, 0, 1)])
def test_rows_outside_are_refused(n: int, first: int, count: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        matrices.rows(bytes(32), matrices.Factor.LEFT, n, first, count)
