"""What one operation is judged by: the state, the block it is in, who signed it, and the record helpers for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, TypeVar

from google.protobuf.message import Message

from hypermesh import addressing, falcon
from hypermesh.operations import Decoded, canonical
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Verify
from hypermesh_ledger.state import Fork, Reader

Record = TypeVar("Record", bound=Message)

SIGNERS: Final = 256
"""Enrolled keys whose records are kept parsed, some 10 KB each."""


@dataclass(frozen=True, slots=True)
class Vote:
    """Whether a validator signed the block before: address is the first 20 bytes of SHA-256(consensus key).

    committed: whether it voted for that block (only such a vote has an extension), not just against any.
    """

    address: bytes
    signed: bool
    committed: bool = False


@dataclass(frozen=True, slots=True)
class Lie:
    """Misbehaviour that CometBFT verified; kind is a MisbehaviorKind."""

    address: bytes
    kind: ledger_pb2.MisbehaviorKind
    height: int
    time_ms: int


@dataclass(frozen=True, eq=False)
class Signer:
    """An enrolled key: its record and the body of its certificate. Shared by all who ask for it: never changed."""

    record: ledger_pb2.NodeRecord
    body: trust_pb2.CertificateBody

    @cached_property
    def key_id(self) -> bytes:
        """32 bytes, as enrolled."""
        return self.record.key_id

    @cached_property
    def public(self) -> bytes:
        """The key."""
        return self.body.subject_key

    @cached_property
    def public_id(self) -> bytes:
        """The key's own id."""
        return falcon.key_id(self.public)

    @cached_property
    def network(self) -> bytes:
        """The first 11 bytes of a node's addresses."""
        body = self.body
        prefix = addressing.node_prefix(body.federation, body.cluster, self.key_id, body.node_counter)
        return prefix.network_address.packed[: addressing.NODE_PREFIX_BYTES]


@dataclass(slots=True, eq=False)
class Context:
    """One operation at its place in a block. block_hash is 32 bytes (any, when only trying). Never changed."""

    state: Fork
    height: int
    time_ms: int
    block_hash: bytes
    chain_id: str
    genesis: ledger_pb2.Genesis
    epoch: ledger_pb2.Epoch
    verify: Verify
    decoded: Decoded
    votes: Sequence[Vote] = ()
    trial: bool = False
    """Only whether it would be refused is asked: what nobody refuses any more need not be written."""

    def put(self, key: bytes, record: Message) -> None:
        """Write a record in its canonical form."""
        self.state.put(key, canonical(record))

    def node(self, key_id: bytes) -> Signer | None:
        """The enrolled node or service."""
        return signer_of(self.state, key_id)

    def asset(self, asset_id: bytes) -> ledger_pb2.AssetRecord:
        """Raises Refused(NoSuchAsset)."""
        record = read(self.state, keys.asset(asset_id), ledger_pb2.AssetRecord)
        if record is None:
            raise Refused(Reason.NoSuchAsset, f"Asset {asset_id.hex()[:16]} is not registered.")
        return record

    def owner(self, record: ledger_pb2.AssetRecord) -> Signer:
        """The node of a registered asset: it was enrolled before it could register."""
        owner = self.node(record.node)
        if owner is None:
            raise ValueError(f"state holds an asset of node {record.node.hex()} but not the node")
        return owner


def signer_of(state: Reader, key_id: bytes) -> Signer | None:
    """The enrolled node or service."""
    value = state.get(keys.node(key_id))
    return None if value is None else _signer(value)


@lru_cache(SIGNERS)
def _signer(value: bytes) -> Signer:
    record = ledger_pb2.NodeRecord.FromString(value)
    return Signer(record, trust_pb2.CertificateBody.FromString(record.certificate.body))


def read(state: Reader, key: bytes, kind: type[Record]) -> Record | None:
    """A record of the state, None when it is not there."""
    value = state.get(key)
    return None if value is None else kind.FromString(value)


def require_role(signer: Signer, role: trust_pb2.Role, deed: str) -> None:
    """Raises Refused(RoleForbidden)."""
    if signer.body.role != role:
        held, needed = trust_pb2.Role.Name(signer.body.role), trust_pb2.Role.Name(role)
        raise Refused(Reason.RoleForbidden, f"{signer.body.subject} is {held}; {deed} takes a key of {needed}.")


def require(condition: bool, message: str) -> None:
    """Raises Refused(Malformed) unless the condition holds."""
    if not condition:
        raise Refused(Reason.Malformed, message)
