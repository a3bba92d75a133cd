"""When the ledger's process is ready, and that a renewal that fails does not end it."""

from __future__ import annotations

import asyncio
import logging
import time
from ipaddress import IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hypermesh import falcon
from hypermesh.v1 import trust_pb2
from hypermesh_clients.enrolment import Enrolment
from hypermesh_clients.trust import Trust
from hypermesh_ledger import membership
from hypermesh_ledger.application import Progress
from hypermesh_ledger.core import Core

KEY = falcon.generate()
TRUST = Trust(KEY.public, b"no certificate", bytes(5), 1, IPv6Network("fd12:3456:789a:1::/64"), "uid")


def test_blocks_of_an_earlier_run_make_nobody_ready() -> None:
    head = SimpleNamespace(height=7)
    progress = Progress()
    assert "TrustChain" in (progress.check() or "")
    progress.begin(cast(Core, SimpleNamespace(store=SimpleNamespace(head=head))))
    assert "no block yet since the start at height 7" in (progress.check() or "")
    head.height = 8
    assert progress.check() is None
    assert progress.height == 8


def joined(token: Path, not_after: float) -> membership.Membership:
    """A member whose certificate is due for renewal and ends at `not_after`; TrustChain is nowhere."""
    body = trust_pb2.CertificateBody(not_after=int(not_after))
    enrolment = Enrolment(trust_pb2.Certificate(), body, b"key", b"chain", b"root", b"public")
    return membership.Membership(TRUST, membership.TrustChain("ns", "[::1]:1", token), KEY, enrolment)


def test_a_failing_renewal_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is no text: neither a refusal nor an absence, so nothing that is expected."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(membership, "RETRY_S", 0.0)
    (tmp_path / "token").write_bytes(b"\xff")
    member = joined(tmp_path / "token", time.time() - 1)

    async def some_attempts() -> None:
        renewing: asyncio.Task[Any] = asyncio.create_task(member.renew())
        for _ in range(2_000):
            if len(caplog.messages) >= 2 or renewing.done():
                break
            await asyncio.sleep(0.01)
        assert not renewing.done()
        renewing.cancel()

    asyncio.run(some_attempts())
    assert len(caplog.messages) >= 2
    assert all("not renewed yet" in line for line in caplog.messages)
    assert "can't decode" in (member.check() or "")


def test_a_certificate_that_lasts_is_ready(tmp_path: Path) -> None:
    assert joined(tmp_path, time.time() + 60).check() is None
