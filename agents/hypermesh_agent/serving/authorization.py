"""Who may use which address: metadata of a call -> the piece of hardware it may use, or a Denied with the reason. Pure.

A token is good for exactly one address until its lease ends. Only its SHA-256 is on the ledger; it is compared in
constant time. Reasons travel in the trailing metadata `hypermesh-reason`, for programs; texts are for people.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Final

import grpc

from hypermesh_agent.enforcement.regions import Region

ADDRESS_KEY: Final = "hypermesh-address"
TOKEN_KEY: Final = "authorization"  # noqa: S105
REASON_KEY: Final = "hypermesh-reason"
MAX_TRANSFER: Final = 1 << 20
"""Bytes that one Read or Write moves at most."""
_REMEMBERED: Final = 4096
_SCHEME: Final = "bearer "


class Denial(StrEnum):
    """Why a call is refused."""

    ADDRESS_MISSING = "AddressMissing"
    ADDRESS_FOREIGN = "AddressForeign"
    NO_SUCH_MAPPING = "NoSuchMapping"
    OPENING = "AddressOpening"
    TOKEN_MISSING = "TokenMissing"  # noqa: S105
    TOKEN_WRONG = "TokenWrong"  # noqa: S105
    LEASE_ENDED = "LeaseEnded"
    NOT_ADDRESSABLE = "NotAddressable"
    OUT_OF_RANGE = "OutOfRange"
    TOO_LARGE = "TooLarge"
    TOO_MANY = "TooManyCalls"
    REQUEST_LATE = "RequestLate"
    MALFORMED = "Malformed"
    FAILED = "RegionFailed"


class Denied(Exception):
    """The answer "no": gRPC status, reason, and a sentence that names the address and what is wrong."""

    def __init__(self, status: grpc.StatusCode, reason: Denial, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Served:
    """What stands behind one address. address 16 bytes; capability_hash SHA-256 of the token; times unix ms."""

    address: bytes
    capability_hash: bytes = field(repr=False)
    type: int
    amount: int
    expires_ms: int
    node_name: str
    asset_name: str
    attributes: Callable[[], Mapping[str, str]]
    region: Region | None


class Desk:
    """The addresses of this node that answer now, and those that lately ceased to."""

    def __init__(self, node_name: str, prefix: IPv6Network) -> None:
        self._node_name = node_name
        self._prefix = prefix
        self._served: dict[bytes, Served] = {}
        self._expected: set[bytes] = set()
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def expect(self, address: bytes) -> None:
        """Its lease runs and it will be opened: until then callers are asked to try again."""
        self._expected.add(address)

    def open(self, served: Served) -> None:
        """From now on `served.address` answers."""
        self._served[served.address] = served
        self._expected.discard(served.address)
        self._ended.pop(served.address, None)

    def close(self, address: bytes) -> None:
        """From now on it does not, and says that the lease has ended."""
        known = address in self._served or address in self._expected
        self._served.pop(address, None)
        self._expected.discard(address)
        if known:
            self._ended[address] = None
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    def clear(self) -> None:
        """Lets go of every region; nothing answers any more."""
        self._served.clear()
        self._expected.clear()

    def authorize(self, metadata: Iterable[tuple[str, str | bytes]], now_ms: int) -> Served:
        """The hardware that this call may use. Raises Denied."""
        address, token = _credentials(metadata)
        served = self._served.get(address.packed)
        if served is None:
            raise self._unknown(address)
        if not hmac.compare_digest(hashlib.sha256(token).digest(), served.capability_hash):
            raise Denied(
                grpc.StatusCode.PERMISSION_DENIED,
                Denial.TOKEN_WRONG,
                f"the token is not the one of {address}; take it from the access Secret of that Allocation",
            )
        if served.expires_ms <= now_ms:
            raise _ended(address)
        return served

    def _unknown(self, address: IPv6Address) -> Denied:
        if address not in self._prefix:
            text = f"{address} is not an address of node {self._node_name}, whose addresses are in {self._prefix}"
            return Denied(grpc.StatusCode.NOT_FOUND, Denial.ADDRESS_FOREIGN, text)
        if address.packed in self._expected:
            text = f"{address} is being opened again after a restart of the agent on node {self._node_name}; try again"
            return Denied(grpc.StatusCode.UNAVAILABLE, Denial.OPENING, text)
        if address.packed in self._ended:
            return _ended(address)
        text = f"nothing is mapped to {address} on node {self._node_name}; wait until the Allocation is Ready"
        return Denied(grpc.StatusCode.NOT_FOUND, Denial.NO_SUCH_MAPPING, text)


def check_range(served: Served, offset: int, length: int) -> Region:
    """The region, when `length` bytes at `offset` lie in it and one call may move them. Raises Denied."""
    address = IPv6Address(served.address)
    if served.region is None:
        text = f"{address} is held for its tenant but has no bytes to read or write; use Describe"
        raise Denied(grpc.StatusCode.FAILED_PRECONDITION, Denial.NOT_ADDRESSABLE, text)
    if length > MAX_TRANSFER:
        text = f"{length} bytes in one call; at most {MAX_TRANSFER} can be moved at once"
        raise Denied(grpc.StatusCode.INVALID_ARGUMENT, Denial.TOO_LARGE, text)
    if offset + length > served.region.size:
        text = f"bytes {offset} to {offset + length} are outside {address}, which has {served.region.size} bytes"
        raise Denied(grpc.StatusCode.OUT_OF_RANGE, Denial.OUT_OF_RANGE, text)
    return served.region


def _credentials(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[IPv6Address, bytes]:
    given = {key: value if isinstance(value, str) else value.decode("latin-1") for key, value in metadata}
    try:
        address = IPv6Address(given.get(ADDRESS_KEY, ""))
        if address.scope_id is not None:
            raise ValueError("a proxy address has no scope")
    except ValueError:
        text = f"metadata {ADDRESS_KEY} must name the proxy address that is meant"
        raise Denied(grpc.StatusCode.INVALID_ARGUMENT, Denial.ADDRESS_MISSING, text) from None
    scheme = given.get(TOKEN_KEY, "")
    if scheme[: len(_SCHEME)].lower() != _SCHEME or len(scheme) <= len(_SCHEME):
        text = f"metadata {TOKEN_KEY} must be 'Bearer <token>' with the token of the access Secret"
        raise Denied(grpc.StatusCode.UNAUTHENTICATED, Denial.TOKEN_MISSING, text)
    return address, scheme[len(_SCHEME) :].encode()


def _ended(address: IPv6Address) -> Denied:
    text = f"the lease of {address} has ended; create a new Allocation"
    return Denied(grpc.StatusCode.FAILED_PRECONDITION, Denial.LEASE_ENDED, text)
