"""Keys at rest: both secrets are needed, and any change of the file is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.keyfile import KeyFileInvalid, WrongKey, derive_kek, unwrap, wrap

LOCAL, CLUSTER = bytes(range(32)), bytes(range(100, 132))
KEK = derive_kek(LOCAL, CLUSTER)


def test_the_wrapping_key_is_stable() -> None:
    """A change here locks every node out of its key: bump the key file's version instead."""
    assert KEK.hex() == "cdc75ce6b7487e81857b57c5f08c7a07e03e42c21d21f07b5a0dd9d20334272e"


def test_the_wrapping_key_is_hkdf_sha512() -> None:
    """RFC 5869 written out with hmac alone."""
    import hashlib
    import hmac

    framed = b"hypermesh/keyfile\0" + b"".join(len(part).to_bytes(8, "big") + part for part in (LOCAL, CLUSTER))
    extracted = hmac.digest(bytes(64), framed, hashlib.sha512)
    assert hmac.digest(extracted, b"hypermesh/keyfile/1\x01", hashlib.sha512)[:32] == KEK


def test_each_half_matters_and_so_does_their_order() -> None:
    others = [derive_kek(bytes(32), CLUSTER), derive_kek(LOCAL, bytes(32)), derive_kek(CLUSTER, LOCAL)]
    assert len({KEK, *others}) == 4


@pytest.mark.parametrize(("local", "cluster"), [(b"", CLUSTER), (LOCAL[:31], CLUSTER), (LOCAL, CLUSTER[:31])])
def test_short_secrets_are_refused(local: bytes, cluster: bytes) -> None:
    with pytest.raises(KeyFileInvalid, match="secret has"):
        derive_kek(local, cluster)


@given(st.binary(max_size=5000))
def test_round_trip(secret: bytes) -> None:
    blob = wrap(secret, KEK)
    assert unwrap(blob, KEK) == secret
    assert wrap(secret, KEK) != blob
    assert len(secret) < 8 or secret not in blob


def test_another_key_is_wrong() -> None:
    with pytest.raises(WrongKey, match="both secrets"):
        unwrap(wrap(b"secret", KEK), derive_kek(LOCAL, bytes(32)))


@given(st.data())
def test_every_changed_bit_is_noticed(data: st.DataObject) -> None:
    blob = bytearray(wrap(b"secret", KEK))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises((WrongKey, KeyFileInvalid)):
        unwrap(bytes(blob), KEK)


@given(st.binary(max_size=100))
def test_garbage_and_truncation_are_named(garbage: bytes) -> None:
    with pytest.raises(KeyFileInvalid):
        unwrap(garbage, KEK)
    whole = wrap(b"secret", KEK)
    with pytest.raises((KeyFileInvalid, WrongKey)):
        unwrap(whole[: len(garbage) % len(whole)], KEK)


def test_an_unknown_version_is_told() -> None:
    with pytest.raises(KeyFileInvalid, match="version 2"):
        unwrap(b"HMKF\x02\x01" + bytes(60), KEK)


@pytest.mark.parametrize("kek", [b"", bytes(16), bytes(33)])
def test_wrapping_keys_have_32_bytes(kek: bytes) -> None:
    with pytest.raises(KeyFileInvalid, match="derive_kek"):
        wrap(b"secret", kek)
