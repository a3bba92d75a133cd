"""Small transactions for tests of the pool: their bytes are their hash, so that a block reads like a list of names."""

from __future__ import annotations

from hypermesh import operations
from hypermesh.v1 import ledger_pb2

LATE = 1 << 50
"""A validity that never ends."""


def decoded(kind: str, name: bytes, signer: bytes = b"", until_ms: int = LATE) -> operations.Decoded:
    """As after checks."""
    operation = ledger_pb2.Operation(valid_until_ms=until_ms)
    read = operations.Read(b"", None, signer, b"", b"", b"", name)
    return operations.Decoded(read, operation, kind, name)
