"""Operations as signed transactions: build (client side) and decode (everybody else).

Operation -> deterministic bytes -> Falcon signature over operation and ticket bytes -> Envelope bytes = transaction.
There is exactly one encoding of every transaction: bytes that differ from the deterministic serialization of what
they parse to, or that carry unknown fields, are refused. Pure; signatures are only made here, checked elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from hypermesh import batches, digests, falcon
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2

Found = TypeVar("Found")
Tickets = tuple[bytes, bytes, bytes, bytes]
"""Hashes of the tickets of space, stake, work and time."""

MAX_ENVELOPE_BYTES: Final = 1 << 20
VALIDITY_MS: Final = 10 * 60 * 1000
"""Longest time between a block and the end of an operation's validity (also how long ended ids are remembered)."""
SIGNATURE_DOMAIN: Final = "operation"
TICKETLESS: Final = frozenset(
    {
        *("enrol_node", "commit_work", "prove", "commit_memory", "prove_memory"),
        *("join_validator", "leave_validator", "delegate", "revoke"),
    }
)
"""Kinds that win tickets instead of spending them, and those that are about no asset: validators', and delegations."""
_TICKETS: Final = (
    ("space", Reason.SpaceTicketMissing),
    ("stake", Reason.StakeTicketMissing),
    ("work", Reason.WorkTicketMissing),
    ("time", Reason.TimeTicketMissing),
)


class Read(NamedTuple):
    """What an envelope of one encoding says beside its signature's algorithm, and what is hashed of it."""

    operation: bytes
    tickets: Tickets | None
    signer: bytes
    signature: bytes
    signed: bytes
    """32 bytes: what the signature is over, see `signed_parts`; the same for all of a batch."""
    claim: bytes
    """32 bytes, of `signature` and `signed`."""
    tx_hash: bytes
    """32 bytes, as CometBFT computes it."""


@dataclass(eq=False)
class Decoded:
    """A well-formed transaction, its signature not yet checked.

    Whoever holds one shares it: nothing of it is ever changed.
    """

    read: Read
    operation: ledger_pb2.Operation
    kind: str
    raw: bytes
    """The transaction itself."""
    _once: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def tx_hash(self) -> bytes:
        """32 bytes."""
        return self.read.tx_hash

    def once(self, find: Callable[..., Found], *of: object) -> Found:
        """find(self, *of), computed once for all who hold this: a pure function of what never changes.

        of: plain values, which are kept; they are all of the state that the result follows from. What it raises is not
        remembered.
        """
        asked = (find, *of)
        try:
            found: Found = self._once[asked]
        except KeyError:
            found = self._once[asked] = find(self, *of)
        return found

    @cached_property
    def envelope(self) -> ledger_pb2.Envelope:
        """The outer message, for who shows or verifies it whole."""
        return ledger_pb2.Envelope.FromString(self.raw)


def canonical(message: Message) -> bytes:
    """The one serialization that this project signs and hashes."""
    return message.SerializeToString(deterministic=True)


def tx_hash(envelope: bytes) -> bytes:
    """SHA-256 of the transaction, 32 bytes: the hash that CometBFT indexes it by."""
    return hashlib.sha256(envelope).digest()


def asset_id(node: bytes, asset_type: int, hardware_id: str) -> bytes:
    """32 bytes; node is the owning node's key id, asset_type an AssetType, hardware_id stable over reboots."""
    return digests.digest("asset", node, asset_type.to_bytes(1, "big"), hardware_id.encode())


def allocation_id(cluster_uid: str, uid: str) -> bytes:
    """32 bytes; cluster_uid is in the operator's certificate, uid is the Allocation resource's."""
    return digests.digest("allocation", cluster_uid.encode(), uid.encode())


def signed_parts(envelope: ledger_pb2.Envelope) -> tuple[bytes, bytes]:
    """What the signature covers under SIGNATURE_DOMAIN: operation bytes, and ticket bytes (empty when absent).

    Of an operation signed in a batch: the batch's root and batches.MARK.
    """
    own = envelope.operation, canonical(envelope.tickets) if envelope.HasField("tickets") else b""
    if not envelope.batch_path:
        return own
    return batches.root(batches.leaf(*own), envelope.batch_index, envelope.batch_path), batches.MARK


def build(
    operation: ledger_pb2.Operation,
    signer_public: bytes,
    signer_secret: bytes,
    tickets: proofs_pb2.TicketRefs | None = None,
) -> bytes:
    """Serialize and sign: returns the bytes of the Envelope. Raises Refused when they could never be accepted."""
    envelope = ledger_pb2.Envelope(
        operation=canonical(operation),
        tickets=tickets,
        signer=falcon.key_id(signer_public),
        algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
    )
    envelope.signature = falcon.sign(signer_secret, SIGNATURE_DOMAIN, *signed_parts(envelope))
    built = canonical(envelope)
    decode(built)
    return built


def build_batch(
    asked: Sequence[tuple[ledger_pb2.Operation, proofs_pb2.TicketRefs | None]],
    signer_public: bytes,
    signer_secret: bytes,
) -> list[bytes]:
    """As `build` for several operations at the price of one signature; one Envelope for each, in the same order."""
    if len(asked) == 1:
        operation, tickets = asked[0]
        return [build(operation, signer_public, signer_secret, tickets)]
    envelopes = [
        ledger_pb2.Envelope(
            operation=canonical(operation),
            tickets=tickets,
            signer=falcon.key_id(signer_public),
            algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
        )
        for operation, tickets in asked
    ]
    root, paths = batches.tree([batches.leaf(*signed_parts(envelope)) for envelope in envelopes])
    signature = falcon.sign(signer_secret, SIGNATURE_DOMAIN, root, batches.MARK)
    built = []
    for index, (envelope, path) in enumerate(zip(envelopes, paths, strict=True)):
        envelope.signature, envelope.batch_index = signature, index
        envelope.batch_path.extend(path)
        built.append(canonical(envelope))
        decode(built[-1])
    return built


def decode(envelope: bytes) -> Decoded:
    """Parse strictly. Raises Refused(TooLarge | Malformed | NotCanonical | UnsupportedAlgorithm | …TicketMissing)."""
    return decoded(envelope, _read(envelope))


def decoded(envelope: bytes, read: Read) -> Decoded:
    """The rest of `decode`, of an envelope that is read already. Raises Refused."""
    operation = ledger_pb2.Operation()
    _parse(operation, read.operation, "operation")
    kind = operation.WhichOneof("kind")
    if kind is None:
        raise Refused(Reason.Malformed, "The operation says nothing to do (no kind is set).")
    if kind not in TICKETLESS:
        _require_tickets(read.tickets)
    elif read.tickets is not None:
        raise Refused(Reason.Malformed, f"{kind} wins tickets and must not name any.")
    return Decoded(read, operation, kind, envelope)


def _read(envelope: bytes) -> Read:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise Refused(Reason.TooLarge, f"The envelope has {len(envelope)} bytes, {MAX_ENVELOPE_BYTES} are allowed.")
    outer = ledger_pb2.Envelope()
    _parse(outer, envelope, "envelope")
    if outer.algorithm != trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024:
        raise Refused(Reason.UnsupportedAlgorithm, f"Signature algorithm {outer.algorithm} is not known here.")
    if len(outer.signer) != 32:
        raise Refused(Reason.Malformed, f"The signer's key id has {len(outer.signer)} bytes instead of 32.")
    if len(outer.signature) != falcon.SIGNATURE_BYTES:
        raise Refused(Reason.BadSignature, f"The signature has {len(outer.signature)} bytes instead of 1280.")
    if not batches.well_formed(outer.batch_index, outer.batch_path):
        raise Refused(Reason.Malformed, f"The batch path of {len(outer.batch_path)} hashes is none of a batch.")
    named = outer.tickets
    return Read(
        operation=outer.operation,
        tickets=(named.space, named.stake, named.work, named.time) if outer.HasField("tickets") else None,
        signer=outer.signer,
        signature=outer.signature,
        signed=(signed := digests.digest(SIGNATURE_DOMAIN, *signed_parts(outer))),
        claim=digests.digest("check/claim", outer.signature, signed),
        tx_hash=tx_hash(envelope),
    )


def _parse(message: Message, data: bytes, name: str) -> None:
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise Refused(Reason.Malformed, f"The {name} is not a protobuf message.") from error
    message.DiscardUnknownFields()  # type: ignore[no-untyped-call, unused-ignore]
    if canonical(message) != data:
        raise Refused(Reason.NotCanonical, f"The {name}'s bytes are not its deterministic serialization.")


def _require_tickets(tickets: Tickets | None) -> None:
    if tickets is not None and len(tickets[0]) == len(tickets[1]) == len(tickets[2]) == len(tickets[3]) == 32:
        return
    for (name, reason), value in zip(_TICKETS, tickets or (b"",) * 4, strict=True):
        if len(value) != 32:
            raise Refused(reason, f"The {name} ticket's hash has {len(value)} bytes instead of 32.")
