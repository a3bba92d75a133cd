"""ABCI's socket protocol: every message is protobuf with its length before it, as an unsigned varint."""

from __future__ import annotations

import asyncio

from hypermesh_ledger.delimited import delimited
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

MAX_MESSAGE_BYTES = 64 << 20


async def read_request(reader: asyncio.StreamReader) -> abci.Request | None:
    """The next request, None at the end. Raises ValueError for a length that no message has."""
    length = shift = 0
    while True:
        byte = await reader.read(1)
        if not byte:
            return None
        length |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
        shift += 7
        if shift > 28:
            raise ValueError("ABCI message length is not a varint of 32 bits")
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"ABCI message of {length} bytes")
    return abci.Request.FromString(await reader.readexactly(length))


def encode_response(response: abci.Response) -> bytes:
    """Length and message."""
    return delimited(response.SerializeToString())
