"""A token opens one address until its lease ends; everything else is refused, each with its own reason."""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Address, IPv6Network

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.v1 import ledger_pb2, resource_pb2
from hypermesh_agent.serving.authorization import MAX_TRANSFER, Denied, Desk, Served, check_range
from hypermesh_agent.serving.server import pack_read

PREFIX = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
ADDRESS = IPv6Address("fd12:3456:789a:1:1122:3340::1")
TOKEN = "a-token-of-the-tenant"


class Bytes:
    def __init__(self, size: int) -> None:
        self.size = size

    async def read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    async def write(self, offset: int, data: bytes) -> None:
        raise NotImplementedError


def served(address: IPv6Address = ADDRESS, token: str = TOKEN, size: int | None = 1 << 21) -> Served:
    return Served(
        address=address.packed,
        capability_hash=hashlib.sha256(token.encode()).digest(),
        type=ledger_pb2.ASSET_TYPE_MEMORY,
        amount=1 << 21,
        expires_ms=1_000,
        node_name="node-1",
        asset_name="node-1-memory",
        attributes=dict,
        region=None if size is None else Bytes(size),
    )


def desk() -> Desk:
    made = Desk("node-1", PREFIX)
    made.open(served())
    return made


def metadata(address: object = ADDRESS, token: str = TOKEN) -> list[tuple[str, str | bytes]]:
    return [("hypermesh-address", str(address)), ("authorization", f"Bearer {token}"), ("user-agent", "x")]


def test_the_right_token_opens_the_address() -> None:
    assert desk().authorize(metadata(), 999).asset_name == "node-1-memory"
    assert desk().authorize(metadata("fd12:3456:789a:0001:1122:3340:0000:0001"), 999)
    assert desk().authorize([("hypermesh-address", str(ADDRESS)), ("authorization", f"bearer {TOKEN}")], 0)


@pytest.mark.parametrize(
    ("given_metadata", "now", "status", "reason"),
    [
        ([], 0, "INVALID_ARGUMENT", "AddressMissing"),
        (metadata("not an address"), 0, "INVALID_ARGUMENT", "AddressMissing"),
        (metadata(f"{ADDRESS}%eth0"), 0, "INVALID_ARGUMENT", "AddressMissing"),
        ([("hypermesh-address", str(ADDRESS))], 0, "UNAUTHENTICATED", "TokenMissing"),
        ([("hypermesh-address", str(ADDRESS)), ("authorization", TOKEN)], 0, "UNAUTHENTICATED", "TokenMissing"),
        (metadata(token=""), 0, "UNAUTHENTICATED", "TokenMissing"),
        (metadata(token=TOKEN + "x"), 0, "PERMISSION_DENIED", "TokenWrong"),
        (metadata(token=TOKEN[:-1]), 0, "PERMISSION_DENIED", "TokenWrong"),
        (metadata(token="\u00ff"), 0, "PERMISSION_DENIED", "TokenWrong"),
        (metadata(), 1_000, "FAILED_PRECONDITION", "LeaseEnded"),
        (metadata(token="wrong"), 1_000, "PERMISSION_DENIED", "TokenWrong"),
        (metadata("fd12:3456:789a:1:1122:3340::2"), 0, "NOT_FOUND", "NoSuchMapping"),
        (metadata("fd12:3456:789a:1:1122:4440::1"), 0, "NOT_FOUND", "AddressForeign"),
        (metadata("::1"), 0, "NOT_FOUND", "AddressForeign"),
    ],
)
def test_everything_else_is_refused(
    given_metadata: list[tuple[str, str | bytes]], now: int, status: str, reason: str
) -> None:
    with pytest.raises(Denied) as denied:
        desk().authorize(given_metadata, now)
    assert (denied.value.status.name, denied.value.reason) == (status, reason)
    assert TOKEN not in str(denied.value)


def test_a_token_of_another_address_is_wrong_here() -> None:
    made = desk()
    other = ADDRESS + 1
    made.open(served(other, "another-token"))
    assert made.authorize(metadata(other, "another-token"), 0)
    for address, token in ((ADDRESS, "another-token"), (other, TOKEN)):
        with pytest.raises(Denied, match="not the one of"):
            made.authorize(metadata(address, token), 0)


def test_a_closed_address_says_that_its_lease_ended() -> None:
    made = desk()
    made.close(ADDRESS.packed)
    made.close(ADDRESS.packed)
    with pytest.raises(Denied, match="has ended; create a new Allocation"):
        made.authorize(metadata(), 0)
    made.open(served())
    assert made.authorize(metadata(), 0)


def test_ended_addresses_are_not_remembered_without_bound() -> None:
    made = Desk("node-1", PREFIX)
    for number in range(5_000):
        made.open(served(PREFIX[number]))
        made.close(PREFIX[number].packed)
    assert len(made._ended) == 4096


@given(st.lists(st.tuples(st.text(), st.one_of(st.text(), st.binary()))))
def test_no_metadata_opens_anything_or_raises_another_error(pairs: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(Denied):
        desk().authorize(pairs, 0)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 1 << 22))
def test_exactly_the_bytes_of_the_region_can_be_reached(offset: int, length: int, size: int) -> None:
    piece = served(size=size)
    if length <= MAX_TRANSFER and offset + length <= size:
        assert check_range(piece, offset, length).size == size
        return
    with pytest.raises(Denied) as denied:
        check_range(piece, offset, length)
    assert denied.value.reason == ("TooLarge" if length > MAX_TRANSFER else "OutOfRange")


def test_hardware_without_bytes_can_not_be_read() -> None:
    with pytest.raises(Denied) as denied:
        check_range(served(size=None), 0, 0)
    assert denied.value.status is grpc.StatusCode.FAILED_PRECONDITION


@given(st.binary(max_size=70_000))
def test_the_packed_answer_is_the_protobuf_one(data: bytes) -> None:
    assert pack_read(data) == resource_pb2.ReadResponse(data=data).SerializeToString()
