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
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.enrolment import Enrolment
from hypermesh_clients.trust import Trust
from hypermesh_ledger import membership, supervisor
from hypermesh_ledger.application import BEHIND_BLOCKS, Progress
from hypermesh_ledger.core import Core
from hypermesh_ledger.laggards import Laggards
from hypermesh_ledger.peering import Peers, heights

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


def test_with_peers_the_heartbeat_tells_whose_fault_a_stop_is() -> None:
    head, peers = SimpleNamespace(height=7), SimpleNamespace(best=0, common=0)
    progress = Progress()
    progress.begin(cast(Core, SimpleNamespace(store=SimpleNamespace(head=head))))
    assert progress.heartbeat() == b"7\n"
    progress.peers = cast(Peers, peers)
    head.height = 8
    assert progress.heartbeat() == b"8 0\n"
    assert progress.check() is None
    peers.best = 8
    assert progress.check() is None
    peers.best = peers.common = 8 + BEHIND_BLOCKS
    assert progress.check() is None
    peers.best = peers.common = 9 + BEHIND_BLOCKS
    assert progress.heartbeat() == f"8 {peers.best}\n".encode()
    assert "catching up: at height 8" in (progress.check() or "")
    assert progress.behind()


def test_who_joins_is_ready_when_it_is_level_with_its_peers() -> None:
    """A client that was moved to it sooner would see what was long ago."""
    head, peers = SimpleNamespace(height=0), SimpleNamespace(best=9, common=7)
    progress = Progress()
    progress.begin(cast(Core, SimpleNamespace(store=SimpleNamespace(head=head))))
    progress.peers = cast(Peers, peers)
    head.height = 8
    assert progress.check() == "catching up: at height 8, a peer is at 9"
    for answered in (8, 0):  # by others only, and by nobody, for once
        peers.best = peers.common = answered
        assert progress.check() == "catching up: at height 8, a peer is at 9"
    head.height = 9
    assert progress.check() is None
    peers.best = peers.common = 12
    assert progress.check() is None


def test_who_is_behind_says_so_until_it_is_level_and_again_when_most_are_ahead() -> None:
    head, peers = SimpleNamespace(height=0), SimpleNamespace(best=9, common=9)
    progress = Progress()
    progress.begin(cast(Core, SimpleNamespace(store=SimpleNamespace(head=head))))
    assert progress.lagging() == 0, "there is nobody to tell"
    progress.peers = cast(Peers, peers)
    told = []
    for height, peers.best, peers.common in ((8, 9, 9), (9, 9, 9), (10, 12, 10), (10, 12, 11), (12, 12, 12)):
        head.height = height
        told.append(progress.lagging())
    assert told == [8, 0, 0, 10, 0]


def test_what_others_tell_goes_to_a_ledger_without_peers() -> None:
    core = SimpleNamespace(store=SimpleNamespace(head=SimpleNamespace(height=9)), laggards=None)
    progress = Progress()
    progress.told(5)
    progress.begin(cast(Core, core))
    progress.told(5)
    core.laggards = Laggards()
    progress.told(5)
    assert core.laggards.holds(time.monotonic())


def test_one_peer_that_lies_about_its_height_makes_nobody_unready() -> None:
    head, peers = SimpleNamespace(height=0), SimpleNamespace(best=9, common=9)
    progress = Progress()
    progress.begin(cast(Core, SimpleNamespace(store=SimpleNamespace(head=head))))
    progress.peers = cast(Peers, peers)
    head.height = 9
    assert progress.check() is None
    told = {name: ledger_pb2.PeerResponse(height=height) for name, height in (("a", 11), ("b", 1 << 62), ("c", 12))}
    peers.best, peers.common = heights(told)
    assert (peers.best, peers.common) == (1 << 62, 12)
    assert progress.check() is None
    assert not progress.behind()
    told["a"].height = told["c"].height = 10 + BEHIND_BLOCKS
    peers.best, peers.common = heights(told)
    assert "catching up: at height 9" in (progress.check() or "")
    assert progress.behind()


def test_of_peers_without_a_chain_nothing_is_expected() -> None:
    assert heights({}) == heights({"a": ledger_pb2.PeerResponse()}) == (0, 0)
    assert heights({"a": ledger_pb2.PeerResponse(), "b": ledger_pb2.PeerResponse(height=7)}) == (7, 7)


@pytest.mark.parametrize(
    ("beats", "restarts"),
    [(b"7\n", True), (b"7 9\n", True), (b"7 7\n", False), (b"7 0\n", False)],
)
async def test_who_has_nobody_ahead_waits(
    beats: bytes, restarts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that stands for want of others is no reason to start again; a lone one, or one left behind, is."""
    monkeypatch.setattr(supervisor, "STALL_S", 0.3)
    reader = asyncio.StreamReader()
    watching = asyncio.create_task(supervisor.Supervisor(tmp_path, supervisor.Commands([], []))._stalls(reader))
    for _ in range(100):
        reader.feed_data(beats)
        await asyncio.sleep(0.01)
        if watching.done():
            break
    assert watching.done() is restarts
    if restarts:
        with pytest.raises(supervisor.Ended, match="no block after height 7"):
            await watching
    else:
        watching.cancel()
