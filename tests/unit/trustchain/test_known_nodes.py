"""The registry of node keys: no two nodes share 24 bits, none changes its own, old ones are forgotten."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import addressing
from hypermesh_trustchain import known_nodes
from hypermesh_trustchain.known_nodes import FORGET_S, MAX_KEYS, KnownNode, KnownNodes, RegistryDamaged, subject_id
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

NOW = 1_800_000_000
EMPTY = KnownNodes({})


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def name(key_id: bytes) -> str:
    """A node for each key."""
    return f"node-{key_id.hex()}"


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
    nodes, one = EMPTY.enrol(first, name(first), NOW, NOW)
    nodes, two = nodes.enrol(second, name(second), NOW, NOW)
    assert (one, two) == (0, 1)
    assert addressing.node_bits(first, one) != addressing.node_bits(second, two)
    nodes, again = nodes.enrol(second, name(second), NOW + 10, NOW)
    assert again == 1
    assert nodes.nodes[second] == KnownNode(1, NOW + 10, subject_id(name(second)))


def test_a_key_keeps_its_counter_when_the_collider_is_forgotten() -> None:
    first, second = colliding()
    nodes, _ = EMPTY.enrol(first, name(first), NOW, NOW)
    nodes, _ = nodes.enrol(second, name(second), NOW + FORGET_S, NOW)
    nodes, counter = nodes.enrol(second, name(second), NOW + 2 * FORGET_S, NOW + FORGET_S)
    assert counter == 1
    assert set(nodes.nodes) == {second}


def test_a_late_comer_of_a_forgotten_record_is_itself_kept() -> None:
    first, _ = colliding()
    nodes, _ = EMPTY.enrol(first, name(first), NOW, NOW)
    late = NOW + 10 * FORGET_S
    nodes, counter = nodes.enrol(first, name(first), late + 1, late)
    assert (counter, len(nodes.nodes)) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10**9)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_encoding_round_trips_and_bits_stay_unique(enrolments: list[tuple[int, int]]) -> None:
    nodes = EMPTY
    for number, life in enrolments:
        nodes, _ = nodes.enrol(key(number), name(key(number)), NOW + life, NOW)
    assert KnownNodes.decode(nodes.encode()) == nodes
    bits = [addressing.node_bits(key_id, node.counter) for key_id, node in nodes.nodes.items()]
    assert len(set(bits)) == len(bits)


def test_damaged_bytes_are_told() -> None:
    nodes, _ = EMPTY.enrol(key(1), name(key(1)), NOW, NOW)
    with pytest.raises(RegistryDamaged, match="restore Secret"):
        KnownNodes.decode(nodes.encode()[:-1])
    assert KnownNodes.decode(b"") == EMPTY


def test_a_full_registry_says_so_and_still_renews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_nodes, "MAX_NODES", 2)
    nodes, _ = EMPTY.enrol(key(1), name(key(1)), NOW, NOW)
    nodes, _ = nodes.enrol(key(2), name(key(2)), NOW, NOW)
    with pytest.raises(EnrolmentRefused, match="2 node keys") as caught:
        nodes.enrol(key(3), name(key(3)), NOW, NOW)
    assert caught.value.reason is Reason.REGISTRY_FULL
    nodes.enrol(key(2), name(key(2)), NOW + 5, NOW)


def test_one_node_enrols_few_keys_and_renews_each() -> None:
    nodes, end = EMPTY, NOW + 100
    for number in range(MAX_KEYS):
        nodes, _ = nodes.enrol(key(number), "node-1", end + number, NOW)
    with pytest.raises(EnrolmentRefused, match="node-1 has 4 keys") as caught:
        nodes.enrol(key(99), "node-1", end, NOW)
    assert caught.value.reason is Reason.TOO_MANY_KEYS
    assert "2027-01-15T08:01:40+00:00" in caught.value.message
    nodes, _ = nodes.enrol(key(0), "node-1", end + 50, NOW)
    nodes, _ = nodes.enrol(key(99), "node-2", end, NOW)
    nodes, _ = nodes.enrol(key(98), "node-1", end + 60, end + 1)
    assert len(nodes.nodes) == MAX_KEYS + 2


def test_an_expired_key_comes_back_only_where_there_is_room() -> None:
    nodes, _ = EMPTY.enrol(key(99), "node-1", NOW + 1, NOW)
    for number in range(MAX_KEYS):
        nodes, _ = nodes.enrol(key(number), "node-1", NOW + 100, NOW + 1)
    with pytest.raises(EnrolmentRefused):
        nodes.enrol(key(99), "node-1", NOW + 200, NOW + 1)
    nodes.enrol(key(99), "node-1", NOW + 200, NOW + 100)


def test_a_key_that_moves_to_another_node_counts_there() -> None:
    nodes, end = EMPTY, NOW + 100
    for number in range(MAX_KEYS):
        nodes, _ = nodes.enrol(key(number), "node-1", end, NOW)
    nodes, _ = nodes.enrol(key(99), "node-2", end, NOW)
    with pytest.raises(EnrolmentRefused) as caught:
        nodes.enrol(key(99), "node-1", end, NOW)
    assert caught.value.reason is Reason.TOO_MANY_KEYS
    nodes, _ = nodes.enrol(key(0), "node-2", end, NOW)
    nodes.enrol(key(99), "node-1", end, NOW)


def test_the_greatest_registry_fits_a_secret() -> None:
    greatest = KnownNodes({key(number): KnownNode(0, NOW, subject_id("n")) for number in range(known_nodes.MAX_NODES)})
    assert len(greatest.encode()) * 4 / 3 < 1_000_000
