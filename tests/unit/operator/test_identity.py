"""Readiness by the operator's certificate: due for renewal is still ready, ended is not."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hypermesh import falcon
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_operator.identity import Enrolled, Place
from hypermesh_operator.signing import Keys

KEYS = Keys(falcon.generate(), bytes(32))


def enrolled(certificate: trust_pb2.Certificate | None) -> Enrolled:
    """With a ledger that holds this certificate of our key; nothing here asks TrustChain."""
    nodes = {} if certificate is None else {KEYS.key_id: ledger_pb2.NodeRecord(certificate=certificate)}
    mirror = cast(Mirror, SimpleNamespace(nodes=nodes))
    return Enrolled(Place("[::1]:1", b"", b"", Path("token")), KEYS, cast(LedgerClient, None), mirror)


@pytest.mark.parametrize(("age", "ready"), [(0.1, True), (0.7, True), (0.99, True), (1.01, False)])
def test_a_certificate_serves_to_its_end(age: float, ready: bool) -> None:
    life = 7 * 86400
    begin = int(time.time() - age * life)
    body = trust_pb2.CertificateBody(not_before=begin, not_after=begin + life)
    certificate = trust_pb2.Certificate(body=body.SerializeToString())
    assert (enrolled(certificate).check() is None) is ready


def test_without_a_certificate_it_is_not_ready() -> None:
    assert "does not hold" in (enrolled(None).check() or "")
