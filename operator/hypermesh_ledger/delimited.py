"""Messages with their length before them, as ABCI sends them and CometBFT signs them."""


def delimited(body: bytes) -> bytes:
    """The length as an unsigned varint (protobuf's base 128), then the bytes."""
    length, prefix = len(body), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + body
