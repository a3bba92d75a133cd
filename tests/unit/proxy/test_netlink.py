"""Packed messages: against bytes that nft itself sends, there and back, and garbage that must not raise."""

from __future__ import annotations

import time
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh_agent.proxy import elements, netlink, nftables, routes, ruleset
from hypermesh_agent.proxy.mappings import EXPIRY_TOLERANCE_MS, Key, Target, difference
from hypermesh_agent.proxy.routes import Route

OWN = IPv6Network("fd12:3456:789a:1:1122:3300::/88")

addresses = st.binary(min_size=16, max_size=16)
ports = st.integers(0, 65535)
keys = st.builds(Key, addresses, st.sampled_from([6, 17]), ports)


def test_the_key_is_laid_out_as_nft_shows_it() -> None:
    """`nft --debug=netlink` prints 563412fd 01009a78 40332211 01000000 00000006 0000131d, words in host order."""
    packed = elements.pack_key(Key(IPv6Address("fd12:3456:789a:1:1122:3340:0:1").packed, 6, 7443))
    shown = ["563412fd", "01009a78", "40332211", "01000000", "00000006", "0000131d"]
    words = [packed[12 + 4 * i : 16 + 4 * i] for i in range(6)]
    assert [word[::-1].hex() for word in words[:4]] == shown[:4]
    assert words[4:] == [b"\x06\0\0\0", b"\x1d\x13\0\0"]


def test_a_whole_rule_is_what_nft_sends() -> None:
    """Captured from nft 1.0.6 (libnftnl) for `ip6 daddr fd12:3456:789a:1:1122:3300::/88 reject`."""
    captured = bytes.fromhex(
        "34000180" "0c0001007061796c6f616400" "24000280" "0800010000000001" "0800020000000001" "0800030000000018"
        "080004000000000b" "34000180" "08000100636d7000" "28000280" "0800010000000001" "0800020000000000" "14000380"
        "0f000100fd123456789a000111223300" "24000180" "0b00010072656a65637400" "00" "14000280" "0800010000000000"
        "0500020004000000"
    )  # fmt: skip
    assert ruleset.chains(OWN)[2].rules[1] == captured


@given(st.dictionaries(keys, st.tuples(addresses, ports, st.integers(1, 2**40)), max_size=50))
def test_elements_survive_the_way_through_bytes(table: dict[Key, tuple[bytes, int, int]]) -> None:
    now = time.time_ns() // 1_000_000
    wanted = {key: Target(address, port, now + left) for key, (address, port, left) in table.items()}
    answer = [netlink.Message(kind, body) for kind, _, body in elements.add_elements(wanted, now)]
    assert elements.read_elements(answer, now, now) == wanted


def test_a_read_that_took_long_is_no_difference_and_a_wrong_end_is_one() -> None:
    key, asked, took = Key(bytes(16), 6, 7443), 10**12, 60_000
    for moment in (asked, asked + took):  # the kernel said what was left at any of these
        target = Target(bytes(16), 7443, moment + 3_600_000)
        answer = [netlink.Message(kind, body) for kind, _, body in elements.add_elements({key: target}, moment)]
        found = elements.read_elements(answer, asked, asked + took)
        assert not difference({key: target}, found)
        for wrong in (-took - 2 * EXPIRY_TOLERANCE_MS, took + 2 * EXPIRY_TOLERANCE_MS):
            assert difference({key: target._replace(expires_ms=target.expires_ms + wrong)}, found)


def test_ten_thousand_elements_fit_into_messages_whose_attributes_have_sixteen_bit_lengths() -> None:
    wanted = {Key(number.to_bytes(16, "big"), 6, 7443): Target(bytes(16), 7443, 10**15) for number in range(10_000)}
    messages = list(elements.add_elements(wanted, 0))
    assert all(len(body) < 65_536 for _, _, body in messages)
    assert len(elements.read_elements([netlink.Message(kind, body) for kind, _, body in messages], 0, 0)) == 10_000


def test_an_element_without_time_left_gets_a_millisecond_not_eternity() -> None:
    packed = elements.pack_element(Key(bytes(16), 6, 1), Target(bytes(16), 1, 5), now_ms=10)
    assert packed[-8:] == (1).to_bytes(8, "big")


def test_only_the_last_message_of_a_batch_is_acknowledged() -> None:
    batch = nftables.batch(ruleset.rebuild(OWN))
    flags, offset = [], 0
    while offset < len(batch.data):
        size = int.from_bytes(batch.data[offset : offset + 4], "little")
        flags.append(int.from_bytes(batch.data[offset + 6 : offset + 8], "little") & netlink.ACK)
        offset += size + -size % 4
    assert flags.count(netlink.ACK) == 1
    assert flags[-2] == netlink.ACK
    with pytest.raises(ValueError, match="at least one"):
        nftables.batch([])


def test_a_prefix_must_end_on_a_byte() -> None:
    with pytest.raises(ValueError, match="whole byte"):
        ruleset.chains(IPv6Network("fd00::/90"))


@given(st.binary(max_size=200))
def test_garbage_from_the_kernel_does_not_raise(garbage: bytes) -> None:
    answer = [netlink.Message(nftables.NEWSETELEM, garbage), netlink.Message(24, garbage)]
    list(netlink.each_attribute(garbage))
    ruleset.read_structure(answer, answer, answer)
    assert elements.read_elements(answer, 0, 0) is not None
    assert [routes.unpack(item) for item in answer]


@given(st.integers(0, 2**128 - 1).map(lambda value: IPv6Network((value >> 40 << 40, 88))), addresses)
def test_routes_survive_the_way_through_bytes(prefix: IPv6Network, address: bytes) -> None:
    other = IPv6Address(address)
    for route in (Route(prefix, other), Route(prefix, None, other), Route(prefix)):
        assert routes.unpack(netlink.Message(24, routes.pack(route))) == route


def test_a_plan_touches_only_what_differs() -> None:
    a, b, c = (IPv6Network((number << 40, 88)) for number in (1, 2, 3))
    via = IPv6Address("2001:db8::1")
    wanted = {a: Route(a, via), b: Route(b, via)}
    actual = {a: Route(a, via), b: Route(b, IPv6Address("2001:db8::2")), c: Route(c, via)}
    remove, add = routes.plan(wanted, actual)
    assert remove == [actual[b], actual[c]]
    assert add == [wanted[b]]
    assert routes.plan(wanted, wanted) == ([], [])
