"""The roots: encode and decode, damage noticed, secrets hidden, names constrained."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import addressing, enrolments, falcon
from hypermesh_trustchain import tls_leaves
from hypermesh_trustchain.roots import FALCON_KEY, TLS_CERTIFICATE, TLS_KEY, Root, RootDamaged, generate

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
ROOT = generate("hypermesh-system", NOW)


def test_round_trip_and_hidden_secrets() -> None:
    again = Root.decode(ROOT.encode())
    assert again.federation == ROOT.federation
    assert again.ca_pem == ROOT.ca_pem
    assert again.falcon == ROOT.falcon
    assert repr(ROOT.falcon.secret)[2:40] not in repr(ROOT)
    assert "PRIVATE" not in repr(ROOT)


def test_the_prefix_is_the_hash_of_the_root_key() -> None:
    assert ROOT.prefix.network_address.packed[1:6] == addressing.federation_id(ROOT.falcon.public)


def test_constraints() -> None:
    extensions = ROOT.tls_certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    names = extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    assert {str(name.value) for name in names.value.permitted_subtrees or ()} == {
        "node.hypermesh.internal",
        "hypermesh-system.svc",
        str(ROOT.prefix),
    }


@pytest.mark.parametrize(
    "change",
    [
        {FALCON_KEY: b""},
        {FALCON_KEY: ROOT.encode()[FALCON_KEY][:-1]},
        {FALCON_KEY: b"\x02" + ROOT.encode()[FALCON_KEY][1:]},
        {TLS_KEY: b"no pem"},
        {TLS_CERTIFICATE: b"no pem"},
        {TLS_KEY: generate("other", NOW).encode()[TLS_KEY]},
    ],
    ids=["no falcon key", "short falcon key", "other algorithm", "no tls key", "no certificate", "foreign tls key"],
)
def test_damage_is_told_with_the_remedy(change: dict[str, bytes]) -> None:
    with pytest.raises(RootDamaged, match="restore Secret"):
        Root.decode({**ROOT.encode(), **change})


@pytest.mark.parametrize("missing", [FALCON_KEY, TLS_KEY, TLS_CERTIFICATE])
def test_missing_parts_are_named(missing: str) -> None:
    data = ROOT.encode()
    del data[missing]
    with pytest.raises(RootDamaged, match=missing):
        Root.decode(data)


def test_a_leaf_never_outlives_the_root() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    late = ROOT.tls_certificate.not_valid_after_utc - datetime.timedelta(days=1)
    pem = tls_leaves.issue(ROOT, key.public_key(), ["a.hypermesh-system.svc"], "x", late, datetime.timedelta(days=7))
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == ROOT.tls_certificate.not_valid_after_utc


def test_what_an_enrolment_signs() -> None:
    key = falcon.generate()
    signature = enrolments.sign(key.secret, b"nonce", "token", b"csr")
    parts: tuple[Any, ...] = (b"nonce", "token", b"csr")
    assert enrolments.verify(key.public, signature, *parts)
    for changed in ((b"nonc", "etoken", b"csr"), (b"nonce", "tokencsr", b""), (b"nonce", "token", b"CSR")):
        assert not enrolments.verify(key.public, signature, *changed)
