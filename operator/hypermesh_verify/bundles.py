"""What a proof bundle shows, checked from first principles: docs/concepts/proof-bundles.md has the same in words.

    value (or listing) -> Merkle steps -> app hash -> header's hash -> ML-DSA signatures of more than 2/3
    -> hash of the validator set, which the caller must know from elsewhere

Written beside the ledger, not from it, so that a fault in one shows in the other. Raises BundleRefused for all faults.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

FORMAT = "hypermesh-proof/1"
KEY_TYPE = "cometbft/PubKeyMlDsa65"
STORE_LEAVES = 1 << 17


class BundleRefused(Exception):
    """The bundle does not show what it says, and why not."""


@dataclass(frozen=True)
class Shown:
    """What a chain's validators signed. value None: the state held nothing under the key at that height."""

    chain_id: str
    height: int
    time: str
    key: bytes
    value: bytes | None
    validators_hash: bytes


def check(bundle: Mapping[str, Any]) -> Shown:
    """All but whether the validators are the right ones. Raises BundleRefused."""
    try:
        return _check(bundle)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise BundleRefused(f"the bundle is not of the form {FORMAT}: {error!r}") from error


def _check(bundle: Mapping[str, Any]) -> Shown:
    _need(bundle["format"] == FORMAT, f"the bundle's format is not {FORMAT}")
    key, height = bytes.fromhex(bundle["key"]), int(bundle["height"])
    value = None if bundle["value"] is None else _base64(bundle["value"])
    header, commit = bundle["signed_header"]["header"], bundle["signed_header"]["commit"]
    listing = b"" if value is not None else _base64(bundle["listing"])
    app_hash = _app_hash(key, value, listing, bundle["steps"])
    _need(app_hash == bytes.fromhex(header["app_hash"]), "the Merkle steps do not lead to the header's app hash")
    _need(int(header["height"]) == height + 1 == int(commit["height"]), "header or commit are of another height")
    _need(header_hash(header) == bytes.fromhex(commit["block_id"]["hash"]), "the commit is of another header")
    validators = bundle["validators"]
    _need(
        validators_hash(validators) == bytes.fromhex(header["validators_hash"]), "they are not the header's validators"
    )
    _need(
        3 * _signed(header["chain_id"], commit, validators) > 2 * _power(validators), "2/3 have not signed the header"
    )
    return Shown(header["chain_id"], height, header["time"], key, value, validators_hash(validators))


def _app_hash(key: bytes, value: bytes | None, listing: bytes, steps: Sequence[Mapping[str, Any]]) -> bytes:
    """The root of the steps, which must be those of exactly this key."""
    bucket = sha256(key).digest()[:2]
    place = 2 * int.from_bytes(bucket, "big")
    names = [bytes.fromhex(step["key"]) for step in steps]
    if value is None:
        _need(names == [b"\0B" + bucket, b"ledger"], "the steps are not those of the key's absence")
        _need(key not in _listed(listing), "the key is listed, so it is not absent")
        below, place, store = listing, place + 1, steps[0]
    else:
        _need(bool(value) and bool(key), "neither key nor value may be empty")
        _need(names == [key, b"", b"ledger"], "the steps are not those of the key")
        below, store = value, steps[1]
    _need((store["total"], store["index"]) == (STORE_LEAVES, place), "the store's leaf is another bucket's")
    for name, step in zip(names, steps, strict=True):
        leaf = sha256(b"\0" + bytes([len(name)]) + name + b"\x20" + sha256(below).digest()).digest()
        below = _root(leaf, step["total"], step["index"], [bytes.fromhex(aunt) for aunt in step["aunts"]])
    return below


def _listed(listing: bytes) -> list[bytes]:
    """The keys of a bucket: 1, then for each entry its key's length, the key, and 32 bytes of its value's hash."""
    _need(listing[:1] == b"\1", "the listing is not one")
    found, at = [], 1
    while at < len(listing):
        end = at + 1 + listing[at]
        _need(end + 32 <= len(listing), "the listing is cut off")
        found.append(listing[at + 1 : end])
        at = end + 32
    return found


def _root(leaf: bytes, total: int, index: int, aunts: Sequence[bytes]) -> bytes:
    """RFC 6962, from a leaf upward."""
    _need(0 <= index < total and (total > 1) == bool(aunts), "aunts and size of a tree do not fit")
    if total == 1:
        return leaf
    split = 1 << (total - 1).bit_length() - 1
    if index < split:
        return sha256(b"\1" + _root(leaf, split, index, aunts[:-1]) + aunts[-1]).digest()
    return sha256(b"\1" + aunts[-1] + _root(leaf, total - split, index - split, aunts[:-1])).digest()


def _tree(items: Sequence[bytes]) -> bytes:
    """RFC 6962 root of all leaves."""
    if len(items) == 1:
        return sha256(b"\0" + items[0]).digest()
    split = 1 << (len(items) - 1).bit_length() - 1
    return sha256(b"\1" + _tree(items[:split]) + _tree(items[split:])).digest()


def header_hash(header: Mapping[str, Any]) -> bytes:
    """CometBFT's Header.Hash: the tree of its 14 fields, each in protobuf."""
    version, hashes = (
        header["version"],
        "last_commit data validators next_validators consensus app last_results evidence",
    )
    fields = [
        _field(1, int(version["block"])) + _field(2, int(version.get("app", 0))),
        _field(1, header["chain_id"].encode()),
        _field(1, int(header["height"])),
        _timestamp(header["time"]),
        _block_id(header["last_block_id"]),
        *(_field(1, bytes.fromhex(header[f"{name}_hash"])) for name in hashes.split()),
        _field(1, bytes.fromhex(header["proposer_address"])),
    ]
    return _tree(fields)


def validators_hash(validators: Sequence[Mapping[str, Any]]) -> bytes:
    """CometBFT's ValidatorSet.Hash, of RPC objects in their order."""
    _need(0 < len(validators) <= 10_000, "there are no validators")
    keys = [_field(1, _field(4, _public(each))) + _field(2, _power([each])) for each in validators]
    return _tree(keys)


def _public(validator: Mapping[str, Any]) -> bytes:
    _need(validator["pub_key"]["type"] == KEY_TYPE, f"a validator's key is not of type {KEY_TYPE}")
    return _base64(validator["pub_key"]["value"])


def _power(validators: Sequence[Mapping[str, Any]]) -> int:
    powers = [int(each["voting_power"]) for each in validators]
    _need(all(power > 0 for power in powers), "a validator's power is not positive")
    return sum(powers)


def _signed(chain_id: str, commit: Mapping[str, Any], validators: Sequence[Mapping[str, Any]]) -> int:
    """The power of those who signed the commit's block. A signature that does not hold refuses the bundle."""
    power = 0
    rounds = _field(1, 2) + _fixed(2, int(commit["height"])) + _fixed(3, int(commit["round"]))
    block = _field(4, _block_id(commit["block_id"]))
    for vote, validator in zip(commit["signatures"], validators, strict=True):
        if vote["block_id_flag"] != 2:
            continue  # absent, or for no block
        body = rounds + block + _message(5, _timestamp(vote["timestamp"])) + _field(6, chain_id.encode())
        signature = _base64(vote["signature"])
        try:
            MLDSA65PublicKey.from_public_bytes(_public(validator)).verify(signature, _varint(len(body)) + body)
        except InvalidSignature:
            raise BundleRefused("a validator's signature does not hold") from None
        power += _power([validator])
    return power


def _block_id(block: Mapping[str, Any]) -> bytes:
    parts = _field(1, int(block["parts"]["total"])) + _field(2, bytes.fromhex(block["parts"]["hash"]))
    return _field(1, bytes.fromhex(block["hash"])) + _message(2, parts)


def _timestamp(text: str) -> bytes:
    """RFC 3339 with up to nine digits of a second, in UTC."""
    parts = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", text, re.ASCII)
    _need(parts is not None, "a time is not one of RFC 3339 in UTC")
    assert parts is not None
    seconds = int(datetime.fromisoformat(parts[1] + "+00:00").timestamp())
    return _field(1, seconds) + _field(2, int((parts[2] or "").ljust(9, "0")))


def _base64(text: str) -> bytes:
    """One text for each content: the bits that padding leaves over are zero (RFC 4648, section 3.5)."""
    data = base64.b64decode(text, validate=True)
    _need(base64.b64encode(data).decode() == text, "base64 with bits left over")
    return data


def _varint(number: int) -> bytes:
    _need(0 <= number < 1 << 63, "a number is out of range")
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _field(number: int, value: int | bytes) -> bytes:
    """Protobuf, without what is empty."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value) if value else b""
    return _message(number, value) if value else b""


def _message(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fixed(number: int, value: int) -> bytes:
    return _varint(number << 3 | 1) + value.to_bytes(8, "little") if value else b""


def _need(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BundleRefused(otherwise)
