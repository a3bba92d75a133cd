"""Other values for every field of a message, and wrong bytes for every message: nothing here knows what they mean."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)
FLIPS = 6
"""Bits flipped in one value of bytes; each gives one mutation."""
ELEMENTS = 3
"""Elements of a long list that are mutated: the first, the last and one between."""

_INTEGERS = {
    FieldDescriptor.CPPTYPE_UINT32: (1 << 32, False),
    FieldDescriptor.CPPTYPE_UINT64: (1 << 64, False),
    FieldDescriptor.CPPTYPE_INT32: (1 << 31, True),
    FieldDescriptor.CPPTYPE_INT64: (1 << 63, True),
}


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit other."""
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def other_values(field: Any, value: Any, chance: random.Random) -> list[Any]:
    """Values that field can carry, none equal to value."""
    if field.cpp_type in _INTEGERS:
        limit, signed = _INTEGERS[field.cpp_type]
        found = [0, 1, value - 1, value + 1, value ^ (1 << chance.randrange(31)), limit // 2, limit - 1]
        found += [-1, -limit] if signed else []
        found = [each for each in found if (-limit if signed else 0) <= each < limit]
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        found = [not value]
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        found = [*field.enum_type.values_by_number, 99, -1]
    elif field.type == FieldDescriptor.TYPE_BYTES:
        found = [b"", value[:-1], value + b"\0", value[::-1], bytes(len(value)), chance.randbytes(len(value)), b"x"]
        found += [flipped(value, chance) for _ in range(FLIPS if value else 0)]
    else:
        found = ["", value[:-1], value + "x", value.upper(), value + "\0", "\N{SNOWMAN}" * 9, "x" * 300, "-1", "1e9"]
    return [each for each in dict.fromkeys(found) if each != value]


def mutations(message: M, chance: random.Random, path: str = "") -> Iterator[tuple[str, M]]:
    """(path of the field, a copy of the message with one other value there), for every field that is set or could be.

    Lists lose, repeat and swap elements; a message that is set is also emptied and removed.
    """
    for field in message.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            yield from _list_mutations(message, field, here, chance)
        elif field.message_type is not None:
            if not message.HasField(field.name):
                continue
            removed = _copy(message)
            removed.ClearField(field.name)
            yield here, removed
            for below, changed in mutations(getattr(message, field.name), chance, here):
                copy = _copy(message)
                getattr(copy, field.name).CopyFrom(changed)
                yield below, copy
        elif field.containing_oneof is None or message.HasField(field.name):
            for value in other_values(field, getattr(message, field.name), chance):
                copy = _copy(message)
                setattr(copy, field.name, value)
                yield here, copy


def _list_mutations(message: M, field: Any, here: str, chance: random.Random) -> Iterator[tuple[str, M]]:
    held = list(getattr(message, field.name))
    changed: list[tuple[str, list[Any]]] = []
    if held:
        changed += [(f"{here}[]", []), (f"{here}[]", held[1:]), (f"{here}[]", held[:-1])]
        changed += [(f"{here}[]", [*held, held[-1]]), (f"{here}[]", [held[0]] * len(held)), (f"{here}[]", held[::-1])]
    for index in sorted({0, len(held) // 2, len(held) - 1})[:ELEMENTS] if held else []:
        if field.message_type is not None:
            others = list(mutations(held[index], chance, here))
        else:
            others = [(here, value) for value in other_values(field, held[index], chance)]
        changed += [(below, [*held[:index], other, *held[index + 1 :]]) for below, other in others]
    for below, elements in changed:
        if elements != held:
            copy = _copy(message)
            copy.ClearField(field.name)  # type: ignore[arg-type, unused-ignore]
            getattr(copy, field.name).extend(elements)
            yield below, copy


def _copy(message: M) -> M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def varint(number: int, padding: int = 0) -> bytes:
    """LEB128; padding makes it longer than it needs to be, which protobuf reads all the same."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def other_encodings(data: bytes) -> list[tuple[str, bytes]]:
    """Bytes that protobuf reads as (nearly) the same message, but that are not its deterministic serialization."""
    records = list(_records(data))
    found = [
        ("unknown field", data + varint(500 << 3) + b"\1"),
        ("unknown group", data + varint(501 << 3 | 3) + varint(501 << 3 | 4)),
        ("twice", data + data),
        ("reordered", b"".join(reversed(records))),
        ("first again", records[0] + data),
        ("last again", data + records[-1]),
    ]
    for index, record in enumerate(records):
        tag, length, body = _parts(record)
        if length is not None:
            before, after = b"".join(records[:index]), b"".join(records[index + 1 :])
            found.append(("long length", before + varint(tag) + varint(length, 1) + body + after))
            found.append(("long tag", before + varint(tag, 1) + varint(length) + body + after))
            found.append(("split", before + record + varint(tag) + b"\0" + after))
    return [(name, each) for name, each in found if each != data]


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        begin = at
        tag, at = _read(data, at)
        if tag & 7 == 2:
            length, at = _read(data, at)
            at += length
        elif tag & 7 == 0:
            _, at = _read(data, at)
        else:
            raise ValueError("our messages have lengths and varints only")
        yield data[begin:at]


def _parts(record: bytes) -> tuple[int, int | None, bytes]:
    tag, at = _read(record, 0)
    if tag & 7 != 2:
        return tag, None, record[at:]
    length, at = _read(record, at)
    return tag, length, record[at:]


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
