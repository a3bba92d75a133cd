"""The registry of node keys: no two nodes share 24 bits, none changes its own, old ones are forgotten."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import addressing
from hypermesh_trustchain import known_nodes
from hypermesh_trustchain.known_nodes import FORGET_S, KnownNode, KnownNodes, RegistryDamaged, RegistryFull

NOW = 1_800_000_000
EMPTY = KnownNodes({})


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def colliding() -> tuple[bytes, bytes]:
    seen: dict[int, bytes] = {}
    for number in range(1 << 20):
        bits = addressing.node_bits(key(number), 0)
        if bits in seen:
            return seen[bits], key(number)
        seen[bits] = key(number)
    raise AssertionError("no collision among a million keys: the hash isn't what it was")


def test_colliding_keys_get_different_parts_and_keep_them() -> None:
    first, second = colliding()
    nodes, one = EMPTY.enrol(first, NOW, NOW)
    nodes, two = nodes.enrol(second, NOW, NOW)
    assert (one, two) == (0, 1)
    assert addressing.node_bits(first, one) != addressing.node_bits(second, two)
    nodes, again = nodes.enrol(second, NOW + 10, NOW)
    assert again == 1
    assert nodes.nodes[second] == KnownNode(1, NOW + 10)


def test_a_key_keeps_its_counter_when_the_collider_is_forgotten() -> None:
    first, second = colliding()
    nodes, _ = EMPTY.enrol(first, NOW, NOW)
    nodes, _ = nodes.enrol(second, NOW + FORGET_S, NOW)
    nodes, counter = nodes.enrol(second, NOW + 2 * FORGET_S, NOW + FORGET_S)
    assert counter == 1
    assert set(nodes.nodes) == {second}


def test_a_late_comer_of_a_forgotten_record_is_itself_kept() -> None:
    first, _ = colliding()
    nodes, _ = EMPTY.enrol(first, NOW, NOW)
    late = NOW + 10 * FORGET_S
    nodes, counter = nodes.enrol(first, late + 1, late)
    assert (counter, len(nodes.nodes)) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_encoding_round_trips_and_bits_stay_unique(enrolments: list[tuple[int, int]]) -> None:
    nodes = EMPTY
    for number, life in enrolments:
        nodes, _ = nodes.enrol(key(number), NOW + life, NOW)
    assert KnownNodes.decode(nodes.encode()) == nodes
    bits = [addressing.node_bits(key_id, node.counter) for key_id, node in nodes.nodes.items()]
    assert len(set(bits)) == len(bits)


def test_damaged_bytes_are_told() -> None:
    nodes, _ = EMPTY.enrol(key(1), NOW, NOW)
    with pytest.raises(RegistryDamaged, match="restore Secret"):
        KnownNodes.decode(nodes.encode()[:-1])
    assert KnownNodes.decode(b"") == EMPTY


def test_a_full_registry_says_so_and_still_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_nodes, "MAX_NODES", 2)
    nodes, _ = EMPTY.enrol(key(1), NOW, NOW)
    nodes, _ = nodes.enrol(key(2), NOW, NOW)
    with pytest.raises(RegistryFull, match="2 nodes"):
        nodes.enrol(key(3), NOW, NOW)
    nodes.enrol(key(2), NOW + 5, NOW)


def test_the_greatest_registry_fits_a_secret() -> None:
    greatest = KnownNodes({key(number): KnownNode(0, NOW) for number in range(known_nodes.MAX_NODES)})
    assert len(greatest.encode()) * 4 / 3 < 1_000_000
