"""The address codec: layout against the documented bit table, round trips, refusals."""

import hashlib
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh import addressing
from hypermesh.addressing import AddressError, AddressType, Fields, NetworkPrefix
from hypermesh.v1 import ledger_pb2

KEY = bytes(range(32))
FEDERATION = bytes.fromhex("123456789a")

fields = st.builds(
    Fields,
    federation=st.binary(min_size=5, max_size=5),
    cluster=st.integers(0, 2**16 - 1),
    node=st.integers(0, 2**24 - 1),
    type=st.sampled_from(AddressType),
    asset=st.integers(0, 2**36 - 1),
)
keys = st.binary(min_size=32, max_size=32)
counters = st.integers(0, 2**64 - 1)


@given(fields)
def test_parse_takes_apart_what_was_put_together(value: Fields) -> None:
    assert addressing.parse(value.address) == value
    assert addressing.parse(str(value.address)) == value
    assert addressing.parse(value.address.packed) == value


@given(fields, st.integers(0, 127))
def test_a_flipped_bit_never_parses_to_the_same_fields(value: Fields, bit: int) -> None:
    flipped = IPv6Address(int(value.address) ^ 1 << bit)
    try:
        assert addressing.parse(flipped) != value
    except AddressError:
        assert bit >= 120 or 36 <= bit < 40


def test_layout_is_the_documented_one() -> None:
    """Every field by hand: fd | 12 3456 789a | abcd | 111213 | 4 | 012345678."""
    value = Fields(FEDERATION, 0xABCD, 0x111213, AddressType.MEMORY, 0x012345678)
    assert value.address == IPv6Address("fd12:3456:789a:abcd:1112:1340:1234:5678")
    assert value.node_prefix == IPv6Network("fd12:3456:789a:abcd:1112:1300::/88")
    assert NetworkPrefix(FEDERATION, 0xABCD).network == IPv6Network("fd12:3456:789a:abcd::/64")
    assert value.address in NetworkPrefix(FEDERATION, 0xABCD)
    assert value.address not in NetworkPrefix(FEDERATION, 1)


def test_hashes_are_the_documented_ones() -> None:
    """Recomputed with hashlib from the words of the documentation, counters as 8 bytes big-endian."""
    assert addressing.federation_id(b"root") == hashlib.shake_256(b"root").digest(5)
    node = int.from_bytes(hashlib.shake_256(KEY + (7).to_bytes(8, "big")).digest(3), "big")
    assert addressing.node_bits(KEY, 7) == node
    asset = hashlib.shake_256(KEY + b"\x04" + b"dimm-0" + bytes(8)).hexdigest(5)[:9]
    address = addressing.asset_address(FEDERATION, 1, KEY, 7, AddressType.MEMORY, "dimm-0", 0)
    assert address == Fields(FEDERATION, 1, node, AddressType.MEMORY, int(asset, 16)).address
    assert address in addressing.node_prefix(FEDERATION, 1, KEY, 7)


def test_vectors_hold_still() -> None:
    """Addresses are recorded in ledgers: a change of these figures breaks every federation that exists."""
    address = addressing.asset_address(FEDERATION, 1, KEY, 0, AddressType.STORAGE, "wwn-0x5000", 3)
    assert str(address) == "fd12:3456:789a:1:caac:6f5d:abea:95b1"
    assert addressing.allocation_counter(KEY) == 4361654591843359630
    assert addressing.tls_name(address) == "fd123456789a0001caac6f.node.hypermesh.internal"


@given(keys, counters, counters, st.sampled_from(AddressType), st.text(max_size=64), counters)
def test_an_asset_lies_in_its_nodes_prefix(
    key: bytes, node_counter: int, other: int, type_: AddressType, hardware_id: str, counter: int
) -> None:
    prefix = addressing.node_prefix(FEDERATION, 1, key, node_counter)
    address = addressing.asset_address(FEDERATION, 1, key, node_counter, type_, hardware_id, counter)
    assert address in prefix
    assert addressing.node_prefix_of(address) == prefix
    assert addressing.tls_name(address) == addressing.tls_name(prefix)
    assert addressing.parse(address).type is type_
    if addressing.node_bits(key, other) != addressing.node_bits(key, node_counter):
        foreign = addressing.node_prefix(FEDERATION, 1, key, other)
        assert addressing.tls_name(foreign) != addressing.tls_name(prefix)


@given(keys, st.integers(0, 1000))
def test_allocation_counters_are_stable_and_never_the_assets_own(allocation: bytes, attempt: int) -> None:
    counter = addressing.allocation_counter(allocation, attempt)
    assert 0 < counter < 2**64
    assert counter == addressing.allocation_counter(allocation, attempt)
    assert counter != addressing.allocation_counter(allocation, attempt + 1)


def test_ledger_types_map_to_nibbles() -> None:
    assert {number: AddressType.of_asset(number) for number in ledger_pb2.AssetType.values() if number} == {
        ledger_pb2.ASSET_TYPE_CPU: AddressType.CPU,
        ledger_pb2.ASSET_TYPE_GPU: AddressType.GPU,
        ledger_pb2.ASSET_TYPE_MEMORY: AddressType.MEMORY,
        ledger_pb2.ASSET_TYPE_STORAGE: AddressType.STORAGE,
    }
    with pytest.raises(AddressError, match="asset type 0"):
        AddressType.of_asset(ledger_pb2.ASSET_TYPE_UNSPECIFIED)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2001:db8::1", "begins with 20"),
        ("fc12:3456:789a:1::", "begins with fc"),
        ("fd12:3456:789a:1:0:f0::", "type f"),
        ("fd12::1::2", "not an IPv6 address"),
        ("::ffff:10.0.0.1", "begins with 00"),
        ("10.0.0.1", "not an IPv6 address"),
        ("fd12:3456:789a:1::%eth0", "leave out the scope"),
        (b"\xfd" * 15, "not an IPv6 address"),
    ],
)
def test_parse_refuses_what_is_no_proxy_address(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        addressing.parse(text)


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AddressError, match="cluster 65536"):
        _ = NetworkPrefix(FEDERATION, 65536).network
    with pytest.raises(AddressError, match="federation id has 4 bytes"):
        _ = NetworkPrefix(b"1234", 1).network
    with pytest.raises(AddressError, match="key id has 31 bytes"):
        addressing.node_bits(KEY[:-1], 0)
    with pytest.raises(AddressError, match="does not fit 64 bits"):
        addressing.node_bits(KEY, -1)
    with pytest.raises(AddressError, match="not an AddressType"):
        addressing.asset_bits(KEY, 4, "dimm-0", 0)  # type: ignore[arg-type]
