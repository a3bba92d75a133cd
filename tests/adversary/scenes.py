"""What a forger has to work with: correct operations of every kind, and tickets and keys that are real but not theirs.

    Scene (a world in memory, or the running ledger) -> mutations.py -> Forgery(name, transaction, reasons)

A scene's originals are all acceptable as they are; the tests begin by showing that, or a refusal would say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypermesh import batches, digests, falcon, operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2

from ..builders import Member

PROOFS = ("space", "stake", "work", "time")


@dataclass(frozen=True)
class Original:
    """An operation that the ledger would accept now, with who signs it and the tickets it names."""

    signer: Member
    operation: ledger_pb2.Operation
    refs: proofs_pb2.TicketRefs | None = None

    @property
    def kind(self) -> str:
        return str(self.operation.WhichOneof("kind"))


@dataclass(frozen=True)
class Scene:
    """Everything real around the originals.

    others: keys that must not sign any original: another node, another cluster's operator, a validator, one whose
    certificate has ended, one never enrolled. foreign: real tickets that belong to something else, by proof; stale:
    tickets that were right in `stale_epoch`, by proof (none where the scene has no past; stake is computed).
    """

    originals: Sequence[Original]
    others: Mapping[str, Member]
    foreign: Mapping[str, Sequence[bytes]]
    stale: Mapping[str, Sequence[bytes]]
    stale_epoch: int | None = None


@dataclass(frozen=True)
class Forgery:
    """A transaction that must be refused, for one of `reasons`."""

    name: str
    tx: bytes
    reasons: frozenset[Reason]


@dataclass(frozen=True)
class Unsigned:
    """An operation (its bytes, right or not) and tickets, to be signed by somebody for somebody."""

    name: str
    operation: bytes
    refs: proofs_pb2.TicketRefs | None
    reasons: frozenset[Reason] = frozenset()


def envelope_of(signer: bytes, operation: bytes, refs: proofs_pb2.TicketRefs | None) -> ledger_pb2.Envelope:
    """Without a signature."""
    return ledger_pb2.Envelope(
        operation=operation,
        tickets=refs,
        signer=signer,
        algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
    )


def sign(signer: Member, operation: bytes, refs: proofs_pb2.TicketRefs | None) -> ledger_pb2.Envelope:
    """As operations.build, but takes what build would refuse to send."""
    envelope = envelope_of(signer.key_id, operation, refs)
    envelope.signature = falcon.sign(
        signer.keypair.secret, operations.SIGNATURE_DOMAIN, *operations.signed_parts(envelope)
    )
    return envelope


def sign_all(signer: Member, asked: Sequence[Unsigned], claimed: bytes | None = None) -> list[Forgery]:
    """Really signed by signer, 4096 with one signature; `claimed` is whom the envelopes name instead."""
    forgeries: list[Forgery] = []
    for first in range(0, len(asked), 1 << batches.MAX_DEPTH):
        chunk = list(asked[first : first + (1 << batches.MAX_DEPTH)])
        envelopes = [envelope_of(claimed or signer.key_id, each.operation, each.refs) for each in chunk]
        leaves = [batches.leaf(*operations.signed_parts(envelope)) for envelope in envelopes]
        leaves += [digests.digest("filler")] * (2 - len(leaves))
        root, paths = batches.tree(leaves)
        signature = falcon.sign(signer.keypair.secret, operations.SIGNATURE_DOMAIN, root, batches.MARK)
        for index, (each, envelope) in enumerate(zip(chunk, envelopes, strict=True)):
            envelope.signature, envelope.batch_index = signature, index
            envelope.batch_path.extend(paths[index])
            forgeries.append(Forgery(each.name, operations.canonical(envelope), each.reasons))
    return forgeries
