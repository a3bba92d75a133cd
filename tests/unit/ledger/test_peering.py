"""Which of the peers we are, whom we believe, and that ledgers of one list find one chain, over real TLS on ::1."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hypermesh import falcon
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import errors, joining, peering
from hypermesh_ledger.federation import FileFederation
from hypermesh_ledger.genesis import app_state, make_genesis
from hypermesh_ledger.ingress import make_peer_server
from hypermesh_ledger.node_key import node_id

from ...integration.ledger_fixture import write_tls
from ...processes import free_port

ROOT = falcon.generate().public
GENESIS = json.dumps({"chain_id": "hypermesh-x", "app_state": app_state(make_genesis(ROOT, DEMO))}).encode()


def test_a_lone_ledger_has_no_plan() -> None:
    assert peering.plan(None, "a:1,b:1", "a", None) is None


@pytest.mark.parametrize(
    ("peers", "name", "targets", "founder"),
    [
        ("", "", (), True),
        ("l-0.p.ns.svc:1", "l-0", (), True),
        ("l-0.p.ns.svc:1,l-1.p.ns.svc:1", "l-0", ("l-1.p.ns.svc:1",), True),
        ("l-0.p.ns.svc:1,l-1.p.ns.svc:1", "l-1", ("l-0.p.ns.svc:1",), False),
        ("[fd00::1]:1,[fd00::2]:1", "[fd00::2]:1", ("[fd00::1]:1",), False),
        ("l-0.p.ns.svc:1,l-1.p.ns.svc:1", "", ("l-0.p.ns.svc:1", "l-1.p.ns.svc:1"), False),
    ],
)
def test_who_founds(peers: str, name: str, targets: tuple[str, ...], founder: bool) -> None:
    plan = peering.plan("[::]:26656", peers, name, None)
    assert plan == peering.Plan("[::]:26656", targets, founder, None)


@pytest.mark.parametrize("genesis", [b"{", b"[]", b"{}", b'{"chain_id": "x", "app_state": {}}'])
def test_what_is_no_genesis_is_not_believed(genesis: bytes) -> None:
    with pytest.raises(errors.HomeMismatch, match="no genesis of ours"):
        peering.checked("l-0:1", genesis, ROOT)


def test_another_federations_chain_is_not_joined() -> None:
    with pytest.raises(errors.HomeMismatch, match="another federation"):
        peering.checked("l-0:1", GENESIS, falcon.generate().public)


def test_the_node_key_stays(tmp_path: Path) -> None:
    first = node_id(tmp_path / "config" / "node_key.json")
    assert len(first) == 40
    assert node_id(tmp_path / "config" / "node_key.json") == first
    assert (tmp_path / "config" / "node_key.json").stat().st_mode & 0o777 == 0o600


class Other:
    """A ledger that answers Peer."""

    def __init__(self, directory: Path, answer: ledger_pb2.PeerResponse) -> None:
        self.port = free_port()

        self.heights: set[int] = set()

        async def told(height: int) -> ledger_pb2.PeerResponse:
            self.heights.add(height)
            return answer

        files = FileFederation(directory / "root.pub", directory / "tls.crt", directory / "tls.key")
        self.server, _ = make_peer_server(f"[::1]:{self.port}", files, told)

    @property
    def target(self) -> str:
        return f"[::1]:{self.port}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "root.pub").write_bytes(ROOT)
    (tmp_path / "config").mkdir()
    write_tls(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def introduced(place: Path, others: list[Other], founder: bool, has_chain: bool = False) -> dict[str, Any] | None:
    plan = peering.Plan("[::1]:1", tuple(other.target for other in others), founder, None)
    peers = peering.Peers(plan, (place / "tls.crt").read_bytes())
    try:
        async with asyncio.timeout(20):
            own = joining.Own(5 if has_chain else 0, has_chain, interrupted=False)
            return (await peers.introduce(ROOT, own)).document
    finally:
        await peers.close()


async def test_the_founder_begins_a_chain_only_when_all_others_have_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering, "AGAIN_S", 0.05)
    none = Other(place, ledger_pb2.PeerResponse(node_id="a" * 40, p2p_port=26656))
    late = Other(
        place, ledger_pb2.PeerResponse(genesis=GENESIS, node_id="b" * 40, p2p_port=26657, height=9, earliest_height=1)
    )
    await none.server.start()
    waiting = asyncio.create_task(introduced(place, [none, late], founder=True))
    await asyncio.sleep(0.5)
    assert not waiting.done(), "the one that does not answer may have the chain"
    await late.server.start()
    document = await waiting
    assert document is not None
    assert document["chain_id"] == "hypermesh-x"
    known = f"{'a' * 40}@[::1]:26656,{'b' * 40}@[::1]:26657"
    assert sorted(peering.persistent_peers().split(",")) == known.split(",")
    assert await introduced(place, [none], founder=True) is None
    await none.server.stop(0)
    await late.server.stop(0)


async def test_who_has_its_chain_starts_without_the_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "PATIENCE_S", 0.2)
    monkeypatch.setattr(peering, "AGAIN_S", 0.05)
    nobody = Other(place, ledger_pb2.PeerResponse())
    assert await introduced(place, [nobody], founder=False, has_chain=True) is None
    await nobody.server.stop(0)


async def test_what_could_not_be_an_id_reaches_no_file(place: Path) -> None:
    liar = Other(
        place, ledger_pb2.PeerResponse(genesis=GENESIS, node_id='"\nx = 1', p2p_port=1, height=9, earliest_height=1)
    )
    await liar.server.start()
    assert await introduced(place, [liar], founder=False) is not None
    assert peering.persistent_peers() == ""
    await liar.server.stop(0)


async def test_whom_we_meet_later_is_known_at_the_next_start(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while CometBFT does not answer yet, and when the volume was full before."""
    monkeypatch.setattr(peering, "LOOK_S", 0.05)
    late = Other(place, ledger_pb2.PeerResponse(genesis=GENESIS, node_id="b" * 40, p2p_port=26657, height=9))
    peers = peering.Peers(peering.Plan("[::]:1", (late.target,), True, "localhost"), (place / "tls.crt").read_bytes())
    following = asyncio.create_task(peers.follow(lambda: 7))
    try:
        (place / "config").rename(place / "away")
        await late.server.start()
        for _ in range(400):
            if peers.best == 9:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        assert (peers.best, following.done(), late.heights) == (9, False, {7})
        (place / "away").rename(place / "config")
        for _ in range(400):
            if peering.persistent_peers():
                break
            await asyncio.sleep(0.05)
        assert peering.persistent_peers() == f"{'b' * 40}@[::1]:26657"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await peers.close()
        await late.server.stop(0)
