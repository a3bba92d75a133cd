"""Names of everything in the state. One function a record, so that nothing else knows how keys are built.

Numbers are big-endian and of fixed width, so the order of keys is the order of time.
"""

from __future__ import annotations

from typing import Final, cast

from hypermesh.digests import u64
from hypermesh.v1 import proofs_pb2

GENESIS: Final = b"genesis"
CHAIN_ID: Final = b"chain"
EPOCH: Final = b"epoch"
VDF_MIX: Final = b"mix"

BEACON: Final = b"beacon/"
NODE: Final = b"node/"
PREFIX: Final = b"prefix/"
ASSET: Final = b"asset/"
ALLOCATION: Final = b"alloc/"
ADDRESS: Final = b"addr/"
TICKET: Final = b"ticket/"
TICKET_HASH: Final = b"hash/"
SEED: Final = b"seed/"
PROVEN: Final = b"proven/"
DUE: Final = b"due/"
ENDED: Final = b"ended/"
VALIDATOR: Final = b"validator/"
MEMORY: Final = b"memory/"
MEMORY_OPEN: Final = b"memory-open/"
MEMORY_ASKED: Final = b"memory-asked"
EVIDENCE: Final = b"evidence/"
ATTENDANCE: Final = b"attendance"
TRUST: Final = b"trust/"
OWED: Final = b"owed/"
FORGIVEN: Final = b"forgiven"
DELEGATIONS: Final = b"delegations/"
EXTENSIONS: Final = b"extensions"
SIGNERS: Final = b"signers/"
CLOCK: Final = b"clock"
RECHECK: Final = b"recheck/"
RECHECKED: Final = b"rechecked/"
PLACE: Final = b"place/"
PLACES: Final = b"places"
"""Since when round trips are taken in: present once they are."""

DEVICE: Final = b"~device/"
"""Derived from the assets: kept beside the state, in no app hash, no proof and no snapshot (see store)."""

PRESENT: Final = b"\x01"
"""Value of an index entry that says everything by its key."""


def beacon(epoch: int) -> bytes:
    """-> the epoch's beacon, kept while somebody may still prove for it."""
    return BEACON + u64(epoch)


def node(key_id: bytes) -> bytes:
    """-> NodeRecord"""
    return NODE + key_id


def prefix(packed: bytes) -> bytes:
    """11 bytes, a node's /88 -> its key id"""
    return PREFIX + packed


def asset(asset_id: bytes) -> bytes:
    """-> AssetRecord"""
    return ASSET + asset_id


def devices(device: bytes) -> bytes:
    """Prefix of the index entries of all assets that were ever registered with this work device."""
    return DEVICE + device


def device(device: bytes, asset_id: bytes) -> bytes:
    """Index of assets by their work device; a retired asset, or one registered anew with another, keeps its entry."""
    return DEVICE + device + asset_id


def allocation(allocation_id: bytes) -> bytes:
    """-> AllocationRecord, ended ones too until they are forgotten"""
    return ALLOCATION + allocation_id


def address(packed: bytes) -> bytes:
    """16 bytes -> id of the asset or allocation that holds it"""
    return ADDRESS + packed


def tickets(kind: int, node_id: bytes, subject: bytes) -> bytes:
    """Prefix of all tickets of one subject of one node (subject is the node itself except for work)."""
    return TICKET + bytes([kind]) + node_id + (subject if subject != node_id else b"")


def ticket(kind: int, node_id: bytes, subject: bytes, epoch: int) -> bytes:
    """-> Ticket"""
    return tickets(kind, node_id, subject) + u64(epoch)


def named_ticket(key: bytes) -> proofs_pb2.Ticket:
    """Kind, node, subject and epoch of the ticket that `ticket` gave this key."""
    kind, rest, epoch = key[len(TICKET)], key[len(TICKET) + 1 : -8], int.from_bytes(key[-8:], "big")
    node_id, subject = rest[:32], rest[32:]
    return proofs_pb2.Ticket(
        kind=cast(proofs_pb2.ProofKind, kind), node=node_id, subject=subject or node_id, epoch=epoch
    )


def ticket_hash(value: bytes) -> bytes:
    """32 bytes -> key of the Ticket that carries this hash"""
    return TICKET_HASH + value


def seed(node_id: bytes) -> bytes:
    """-> WorkSeed, the node's newest"""
    return SEED + node_id


def proven(node_id: bytes) -> bytes:
    """-> the newest epoch that the node proved, 8 bytes"""
    return PROVEN + node_id


def due(expires_ms: int, allocation_id: bytes) -> bytes:
    """Index of active leases by their end."""
    return DUE + u64(expires_ms) + allocation_id


def ended(forget_ms: int, allocation_id: bytes) -> bytes:
    """Index of ended allocations by the time they are forgotten."""
    return ENDED + u64(forget_ms) + allocation_id


def memories(node_id: bytes) -> bytes:
    """Prefix of all memories of one node."""
    return MEMORY + node_id


def memory(node_id: bytes, asset_id: bytes) -> bytes:
    """-> MemoryRecord"""
    return memories(node_id) + asset_id


def memory_open(node_id: bytes, asset_id: bytes) -> bytes:
    """Index of memory commitments that wait for their seed, those of the newest block."""
    return MEMORY_OPEN + node_id + asset_id


def validator(seat: bytes) -> bytes:
    """-> ValidatorRecord"""
    return VALIDATOR + seat


def evidence(address: bytes) -> bytes:
    """20 bytes -> Evidence against that consensus key"""
    return EVIDENCE + address


def trust(identity: bytes) -> bytes:
    """-> TrustRecord"""
    return TRUST + identity


def owed(epoch: int, identity: bytes) -> bytes:
    """Index of identities that owe proofs, by the first epoch they are not yet accounted for."""
    return OWED + u64(epoch) + identity


def delegations(owner: bytes) -> bytes:
    """-> Delegations, by the owner's key id"""
    return DELEGATIONS + owner


def signers(height: int) -> bytes:
    """-> SigningSet, who signs blocks from this height until the next set's"""
    return SIGNERS + u64(height)


def recheck(epoch: int, result: bytes) -> bytes:
    """-> RecheckRecord of that epoch's work ticket"""
    return RECHECK + u64(epoch) + result


def rechecked(node_id: bytes) -> bytes:
    """-> RecheckedNode"""
    return RECHECKED + node_id


def place(node_id: bytes) -> bytes:
    """-> PlaceRecord"""
    return PLACE + node_id


def index_time(key: bytes, index: bytes) -> int:
    """Unix milliseconds in a key of `due` or `ended`; the height in one of `signers`, the epoch in one of `owed` and
    `recheck`."""
    return int.from_bytes(key[len(index) : len(index) + 8], "big")


def index_id(key: bytes, index: bytes) -> bytes:
    """The allocation id in a key of `due` or `ended`; the identity in one of `owed`."""
    return key[len(index) + 8 :]
