"""Renewing an enrolment: while the present one holds, nothing that goes wrong takes it away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from hypermesh import falcon
from hypermesh.v1 import trust_pb2
from hypermesh_agent.enrolling import _enrol
from hypermesh_agent.identity import IdentityError, Papers, TlsIdentity
from hypermesh_agent.renewal import Renewal
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


def papers_until(not_after: float) -> Papers:
    """Papers that are due for renewal and end at `not_after`, Unix seconds."""
    body = trust_pb2.CertificateBody(not_after=int(not_after))
    certificate = trust_pb2.Certificate(body=body.SerializeToString())
    return Papers(KEY, certificate, TlsIdentity(b"key", b"chain", b"root"), 0.0)


def answers(*outcomes: Papers | Exception) -> Callable[[], Awaitable[Papers]]:
    """An `obtain` whose attempts end like this, one after the other."""
    left = list(outcomes)

    async def obtain() -> Papers:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return obtain


def test_a_failing_renewal_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the enrolling process ended with, the agent goes on with the papers it has."""
    caplog.set_level(logging.WARNING)
    present, newer = papers_until(time.time() + 3600), papers_until(time.time() + 7200)
    failures = (IdentityError("enrolling ended with status 1"), OSError("no memory"))
    renewal = Renewal(present, answers(*failures, present, newer), pause_s=0.0)
    assert asyncio.run(renewal.next()) is newer
    told = [line for line in caplog.messages if "not renewed yet" in line]
    assert [("status 1" in line, "no memory" in line) for line in told] == [(True, False), (False, True)]
    assert renewal.check() is None


def test_only_an_ended_certificate_takes_the_agent_from_service() -> None:
    ended, newer = papers_until(time.time() - 1), papers_until(time.time() + 7200)
    renewal = Renewal(ended, answers(IdentityError("no token"), newer), pause_s=0.0)
    assert "certificate ended at" in (renewal.check() or "")
    asyncio.run(renewal.next())
    assert "no token" in (renewal.check() or ""), "the newest reason is the one to tell"
    assert Renewal(newer, answers()).check() is None
