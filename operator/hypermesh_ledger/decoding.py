"""Transactions decoded as `hypermesh.operations` does it, the most of it compiled: the ledger decodes each of them."""

from __future__ import annotations

from hypermesh import operations
from hypermesh.operations import MAX_ENVELOPE_BYTES, Decoded, Read
from hypermesh_native import read_envelope


def decode(envelope: bytes) -> Decoded:
    """See operations.decode, which also finds the words for what is refused."""
    read = read_envelope(envelope) if len(envelope) <= MAX_ENVELOPE_BYTES else None
    return operations.decode(envelope) if read is None else operations.decoded(envelope, Read(*read))
