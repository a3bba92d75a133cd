"""Renewing an enrolment: while the present one holds, nothing that goes wrong takes it away."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from hypermesh import falcon
from hypermesh.v1 import trust_pb2
from hypermesh_agent.enrolling import _enrol
from hypermesh_clients.enrolment import Enrolment
from hypermesh_clients.trust import Trust

KEY = falcon.generate()
TRUST = Trust(falcon.generate().public, b"no certificate", bytes(5), 1, IPv6Network("fd12:3456:789a:1::/64"), "uid")
PRESENT = Enrolment(trust_pb2.Certificate(), trust_pb2.CertificateBody(), b"key", b"chain", b"root", b"public")
NOBODY = "[::1]:1"


def attempt(token: Path, present: Enrolment | None) -> Enrolment:
    return asyncio.run(_enrol(TRUST, KEY, NOBODY, token, present))


def test_a_failure_keeps_the_present_enrolment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No token file: no refusal of TrustChain's, and not its absence either."""
    caplog.set_level(logging.WARNING)
    assert attempt(tmp_path / "token", PRESENT) is PRESENT
    assert [line for line in caplog.messages if "the enrolment is not renewed yet" in line and "token" in line]


def test_without_an_enrolment_the_same_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        attempt(tmp_path / "token", None)
