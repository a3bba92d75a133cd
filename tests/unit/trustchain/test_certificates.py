"""Certificates: only what the root could have issued is believed, byte by byte and second by second."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypermesh import addressing, certificates, falcon
from hypermesh.v1 import trust_pb2 as pb

NOW = 1_800_000_000
ROOT, OTHER, SUBJECT = falcon.generate(), falcon.generate(), falcon.generate()


def body(root: falcon.KeyPair = ROOT, **changes: Any) -> pb.CertificateBody:
    fields: dict[str, Any] = {
        "version": 1,
        "algorithm": certificates.FALCON,
        "subject_key": SUBJECT.public,
        "role": pb.ROLE_NODE,
        "subject": "node-1",
        "federation": addressing.federation_id(root.public),
        "cluster": 1,
        "cluster_uid": "7b7a7e5c-0000-4000-8000-000000000000",
        "node_counter": 2,
        "not_before": NOW,
        "not_after": NOW + 100,
        "issuer": root.key_id(),
        "serial": bytes(16),
    }
    return pb.CertificateBody(**{**fields, **changes})


CERTIFICATE = certificates.issue(ROOT.secret, body())


def reason(certificate: pb.Certificate, root: bytes = ROOT.public, now: int = NOW) -> str:
    with pytest.raises(certificates.CertificateInvalid) as caught:
        certificates.verify(certificate, root, now)
    return caught.value.reason


def forged(changed: pb.CertificateBody | bytes, signer: falcon.KeyPair = ROOT) -> pb.Certificate:
    """A body that `issue` would refuse, signed all the same."""
    encoded = changed if isinstance(changed, bytes) else changed.SerializeToString(deterministic=True)
    signature = falcon.sign(signer.secret, certificates.DOMAIN, encoded)
    return pb.Certificate(body=encoded, algorithm=certificates.FALCON, signature=signature)


def test_round_trip() -> None:
    assert certificates.verify(CERTIFICATE, ROOT.public, NOW) == body()


@pytest.mark.parametrize(
    ("now", "expected"), [(NOW - 1, "NotYetValid"), (NOW + 100, "Expired"), (NOW + 10**9, "Expired")]
)
def test_outside_its_time(now: int, expected: str) -> None:
    assert reason(CERTIFICATE, now=now) == expected


def test_the_last_second_counts() -> None:
    certificates.verify(CERTIFICATE, ROOT.public, NOW + 99)


def test_of_another_root() -> None:
    assert reason(CERTIFICATE, root=OTHER.public) == "WrongIssuer"
    assert reason(forged(body(federation=b"other"))) == "WrongIssuer"
    assert reason(forged(body(issuer=OTHER.key_id()))) == "WrongIssuer"
    assert reason(forged(body(), signer=OTHER)) == "BadSignature"


@given(position=st.integers(0, len(CERTIFICATE.body) * 8 - 1))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_flipped_bit_of_the_body_is_noticed(position: int) -> None:
    flipped = bytearray(CERTIFICATE.body)
    flipped[position // 8] ^= 1 << position % 8
    changed = pb.Certificate(body=bytes(flipped), algorithm=certificates.FALCON, signature=CERTIFICATE.signature)
    with pytest.raises(certificates.CertificateInvalid):
        certificates.verify(changed, ROOT.public, NOW)


@given(position=st.integers(0, falcon.SIGNATURE_BYTES * 8 - 1))
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_of_the_signature_is_noticed(position: int) -> None:
    flipped = bytearray(CERTIFICATE.signature)
    flipped[position // 8] ^= 1 << position % 8
    changed = pb.Certificate(body=CERTIFICATE.body, algorithm=certificates.FALCON, signature=bytes(flipped))
    assert reason(changed) == "BadSignature"


@given(garbage=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_malformed_not_a_crash(garbage: bytes) -> None:
    assert reason(pb.Certificate(body=garbage, algorithm=certificates.FALCON, signature=garbage)) == "Malformed"


def test_a_second_encoding_of_the_same_body_is_refused() -> None:
    encoded = CERTIFICATE.body
    unknown_field = b"\xf8\x7f\x01"  # field 2047, varint 1
    repeated = b"\x08\x01"  # version once more, now last
    long_varint = encoded.replace(b"\x08\x01", b"\x08\x81\x00", 1)
    for other in (encoded + unknown_field, encoded + repeated, long_varint):
        assert other != encoded
        assert reason(forged(other)) == "Malformed"


def test_algorithms_are_named() -> None:
    changed = pb.Certificate()
    changed.CopyFrom(CERTIFICATE)
    changed.algorithm = pb.SIGNATURE_ALGORITHM_UNSPECIFIED
    assert reason(changed) == "UnsupportedAlgorithm"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"algorithm": 0},
        {"algorithm": 7},
        pytest.param({"subject_key": SUBJECT.public[:-1]}, id="short subject key"),
        {"role": pb.ROLE_UNSPECIFIED},
        {"role": 9},
        {"role": pb.ROLE_OPERATOR},  # with a node counter
        {"subject": ""},
        {"subject": "n" * 254},
        {"federation": b"four"},
        {"cluster": 0},
        {"cluster": 65536},
        {"cluster_uid": ""},
        {"cluster_uid": "u" * 65},
        {"not_after": NOW},
        {"issuer": b""},
        {"serial": bytes(15)},
    ],
    ids=str,
)
def test_a_body_that_is_never_right(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="certificate for"):
        certificates.issue(ROOT.secret, body(**change))
    assert reason(forged(body(**change))) == "Malformed"
