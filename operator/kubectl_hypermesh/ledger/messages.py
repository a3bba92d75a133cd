"""Protobuf messages as plain values for people: ids in hex, addresses as addresses, long bytes by their length."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

LONG = 64
"""Bytes; longer ones are keys, signatures and proofs, which say nothing to a reader."""


def plain(message: Message) -> dict[str, Any]:
    """The fields that are set, in the order of their numbers."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.is_repeated:
            shown[field.json_name] = [_value(field, item) for item in value]
        else:
            shown[field.json_name] = _value(field, value)
    return shown


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, bytes):
        if field.name.endswith("address") and len(value) == 16:
            return str(IPv6Address(value))
        return value.hex() if len(value) <= LONG else f"{len(value)} bytes"
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name if value in field.enum_type.values_by_number else value
    return value
