"""Proxy addresses: 128 bits that say which piece of hardware is meant, computable by anybody.

    bits   0-7    fd                     unique local address (RFC 4193)
    bits   8-47   federation             SHAKE256(TrustChain root public key)
    bits  48-63   cluster                allocated by TrustChain                  -> one /64 a cluster
    bits  64-87   node                   SHAKE256(key id | counter)               -> one /88 route a node
    bits  88-91   type                   AddressType
    bits  92-127  asset                  SHAKE256(key id | type | hardware id | counter)

Keys, hardware ids and counters go in; an address comes out, and `parse` takes it apart again. An address is a
locator, not an identity: the full 256-bit key id stands in the signed record, and the ledger keeps addresses
unique by raising the counter. Hash inputs need no framing: every part but the hardware id
has a fixed width, key id 32 bytes, type 1 byte, counter 8 bytes big-endian.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

UNIQUE_LOCAL: Final = 0xFD
FEDERATION_BYTES: Final = 5
KEY_ID_BYTES: Final = 32
NODE_PREFIX_LENGTH: Final = 88
NODE_PREFIX_BYTES: Final = NODE_PREFIX_LENGTH // 8
TLS_DOMAIN: Final = "node.hypermesh.internal"

_CLUSTER_BITS: Final = 16
_NODE_BITS: Final = 24
_TYPE_BITS: Final = 4
_ASSET_BITS: Final = 36
_COUNTER_LIMIT: Final = 1 << 64


class AddressError(ValueError):
    """Bytes or fields that cannot stand in a proxy address; the message names the part and what is right."""


class AddressType(enum.Enum):
    """The type nibble. No integer on purpose: the ledger numbers asset types otherwise (`of_asset`)."""

    NODE = 0
    CPU = 1
    GPU = 2
    GPU_MEMORY = 3
    MEMORY = 4
    STORAGE = 5
    NIC = 6
    SERVICE = 7

    @classmethod
    def of_asset(cls, asset_type: int) -> AddressType:
        """The nibble for a `hypermesh.v1.AssetType` number (cpu 1, gpu 2, memory 3, storage 4)."""
        try:
            return _OF_ASSET[asset_type]
        except KeyError:
            message = f"asset type {asset_type} has no address type; use 1 to {len(_OF_ASSET)}"
            raise AddressError(message) from None


_OF_ASSET: Final = {1: AddressType.CPU, 2: AddressType.GPU, 3: AddressType.MEMORY, 4: AddressType.STORAGE}


@dataclass(frozen=True, slots=True)
class Fields:
    """The parts of one address; federation 5 bytes, cluster 16 bits, node 24 bits, asset 36 bits."""

    federation: bytes
    cluster: int
    node: int
    type: AddressType
    asset: int

    @property
    def address(self) -> IPv6Address:
        prefix = _prefix_value(self.federation, self.cluster)
        node = prefix << 64 | _within("node", self.node, _NODE_BITS) << 40
        asset = _within("asset", self.asset, _ASSET_BITS)
        return IPv6Address(node | self.type.value << _ASSET_BITS | asset)

    @property
    def node_prefix(self) -> IPv6Network:
        """The /88 of the node that owns this address."""
        return node_prefix_of(self.address)


@dataclass(frozen=True, slots=True)
class NetworkPrefix:
    """One cluster's part of a federation."""

    federation: bytes
    cluster: int

    @property
    def network(self) -> IPv6Network:
        """The /64."""
        return IPv6Network((_prefix_value(self.federation, self.cluster) << 64, 64))

    def __contains__(self, address: IPv6Address) -> bool:
        return address in self.network


def federation_id(root_public: bytes) -> bytes:
    """The 5 bytes that stand for a federation: SHAKE256 of its TrustChain root public key."""
    return hashlib.shake_256(root_public).digest(FEDERATION_BYTES)


def node_bits(key_id: bytes, counter: int) -> int:
    """24 bits for a node's key id (32 bytes); TrustChain raises the counter when two nodes collide."""
    return _bits(_NODE_BITS, _key(key_id), _counter(counter))


def asset_bits(key_id: bytes, type_: AddressType, hardware_id: str, counter: int) -> int:
    """36 bits for one piece of hardware; the ledger has the counter raised when two collide."""
    if not isinstance(type_, AddressType):
        raise AddressError(f"type {type_!r} is not an AddressType; AddressType.of_asset makes one")
    return _bits(_ASSET_BITS, _key(key_id), bytes([type_.value]), hardware_id.encode(), _counter(counter))


def node_prefix(federation: bytes, cluster: int, key_id: bytes, counter: int) -> IPv6Network:
    """The /88 of a node, from what its certificate says."""
    return Fields(federation, cluster, node_bits(key_id, counter), AddressType.NODE, 0).node_prefix


def asset_address(
    federation: bytes,
    cluster: int,
    key_id: bytes,
    node_counter: int,
    type_: AddressType,
    hardware_id: str,
    counter: int,
) -> IPv6Address:
    """The address of an asset (counter 0, raised on collision) or of an allocation (`allocation_counter`).

    `key_id` and `node_counter` are the owning node's, `hardware_id` the registered one.
    """
    network = node_prefix(federation, cluster, key_id, node_counter).network_address.packed
    return IPv6Address(network[:NODE_PREFIX_BYTES] + asset_suffix(key_id, type_, hardware_id, counter))


def asset_suffix(key_id: bytes, type_: AddressType, hardware_id: str, counter: int) -> bytes:
    """What follows the node's 11 bytes in `asset_address`: 5 bytes."""
    asset = asset_bits(key_id, type_, hardware_id, counter)
    return (type_.value << _ASSET_BITS | asset).to_bytes(16 - NODE_PREFIX_BYTES, "big")


def allocation_counter(allocation_id: bytes, attempt: int = 0) -> int:
    """The counter of an allocation's address: 64 bits, never 0; `attempt` is raised on AddressTaken."""
    material = b"hypermesh/allocation-counter\0" + allocation_id + _counter(attempt)
    return int.from_bytes(hashlib.shake_256(material).digest(8), "big") or 1


def parse(address: IPv6Address | str | bytes) -> Fields:
    """Takes an address apart; 16 bytes, text or an `IPv6Address`. AddressError for anything else."""
    try:
        parsed = IPv6Address(address)
    except ValueError as error:
        raise AddressError(f"{address!r} is not an IPv6 address: {error}") from error
    if parsed.scope_id is not None:
        raise AddressError(f"{parsed} is no proxy address: leave out the scope %{parsed.scope_id}")
    packed = parsed.packed
    if packed[0] != UNIQUE_LOCAL:
        raise AddressError(f"{parsed} is no proxy address: it begins with {packed[0]:02x}, not fd")
    low = int.from_bytes(packed[8:], "big")
    try:
        type_ = AddressType(low >> _ASSET_BITS & 0xF)
    except ValueError:
        message = f"{parsed} is no proxy address: type {low >> _ASSET_BITS & 0xF:x} is not in use"
        raise AddressError(message) from None
    cluster = int.from_bytes(packed[6:8], "big")
    return Fields(packed[1:6], cluster, low >> 40, type_, low & (1 << _ASSET_BITS) - 1)


def node_prefix_of(address: IPv6Address) -> IPv6Network:
    """The /88 that an address lies in."""
    return IPv6Network((int(address) >> 40 << 40, NODE_PREFIX_LENGTH))


def tls_name(address: IPv6Address | IPv6Network) -> str:
    """The TLS server name of the node behind an address: 22 hex digits of its /88, then a fixed domain.

    TrustChain puts exactly this name in the node's certificate: an address alone tells whom to expect.
    """
    first = address.network_address if isinstance(address, IPv6Network) else address
    return f"{first.packed[:11].hex()}.{TLS_DOMAIN}"


def _prefix_value(federation: bytes, cluster: int) -> int:
    if len(federation) != FEDERATION_BYTES:
        raise AddressError(f"federation id has {len(federation)} bytes; it must have {FEDERATION_BYTES}")
    high = UNIQUE_LOCAL << 40 | int.from_bytes(federation, "big")
    return high << _CLUSTER_BITS | _within("cluster", cluster, _CLUSTER_BITS)


def _within(part: str, value: int, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise AddressError(f"{part} {value} does not fit the {bits} bits it has in an address")
    return value


def _bits(count: int, *parts: bytes) -> int:
    """The first `count` bits of SHAKE256 over the parts."""
    size = (count + 7) // 8
    return int.from_bytes(hashlib.shake_256(b"".join(parts)).digest(size), "big") >> size * 8 - count


def _key(key_id: bytes) -> bytes:
    if len(key_id) != KEY_ID_BYTES:
        raise AddressError(f"key id has {len(key_id)} bytes; it must have {KEY_ID_BYTES}")
    return key_id


def _counter(counter: int) -> bytes:
    if not 0 <= counter < _COUNTER_LIMIT:
        raise AddressError(f"counter {counter} does not fit 64 bits")
    return counter.to_bytes(8, "big")
