"""How a ledger begins, by what it holds and what peers tell; and whose word on a header it takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerClient
from hypermesh_ledger import fetching, home, joining, light_proxy
from hypermesh_ledger.errors import HomeMismatch
from hypermesh_ledger.joining import GoOn, Own, Replay, Restore, Stale, Trust, Wait, agreed, decide

from ...integration.ledger_fixture import write_tls

NEW, BEGUN = Own(0, chain=False, interrupted=False), Own(0, chain=True, interrupted=False)
LONG = 10_000


def told(
    height: int, earliest: int = 1, snapshots: Iterable[int] = (), genesis: bytes = b"g"
) -> ledger_pb2.PeerResponse:
    return ledger_pb2.PeerResponse(
        genesis=genesis, height=height, earliest_height=earliest, snapshot_heights=list(snapshots)
    )


SILENT = ledger_pb2.PeerResponse()
PRUNED = told(LONG, LONG - 1_000, (LONG - 1_500, LONG - 500))


def test_the_founder_begins_only_when_all_others_have_none() -> None:
    assert decide(NEW, {"a": SILENT, "b": SILENT}, 2, True, 0) == GoOn()
    assert isinstance(decide(NEW, {"a": SILENT}, 2, True, 999), Wait)
    assert isinstance(decide(NEW, {"a": SILENT, "b": SILENT}, 2, False, 999), Wait)
    assert decide(NEW, {}, 0, True, 0) == GoOn()


def test_a_founder_that_made_no_block_yet_goes_on_and_others_wait_for_it() -> None:
    assert isinstance(decide(BEGUN, {"a": SILENT}, 2, True, 1), Wait)
    assert decide(BEGUN, {"a": SILENT}, 2, True, 7) == GoOn()
    assert isinstance(decide(BEGUN, {"a": told(0)}, 2, False, 999), Wait)
    assert decide(NEW, {"a": told(0, 0)}, 1, True, 0) == Replay("a", b"g"), "it has lost its volume in the first second"


@pytest.mark.parametrize("own", [NEW, BEGUN, Own(0, True, True), Own(77, True, True)])
def test_who_has_nothing_gets_a_short_chain_whole_and_a_long_one_by_a_snapshot(own: Own) -> None:
    assert decide(own, {"a": told(900, 1, (500,))}, 3, False, 0) == Replay("a", b"g")
    assert isinstance(decide(own, {"a": PRUNED}, 3, False, 0), Wait), "others may know better"
    heights = (LONG - 500, LONG - 1_500)
    for answers, waited in (({"a": PRUNED}, 7.0), ({"a": PRUNED, "b": SILENT, "c": PRUNED}, 0.0)):
        assert decide(own, answers, 3, False, waited) == Restore("a", b"g", heights, own.height > 0)


def test_a_snapshot_of_a_long_chain_is_awaited_but_not_for_ever_when_its_blocks_are_there() -> None:
    whole = {"a": told(LONG)}
    assert isinstance(decide(NEW, whole, 1, False, 29), Wait)
    assert decide(NEW, whole, 1, False, 31) == Replay("a", b"g")
    assert isinstance(decide(NEW, {"a": told(LONG, 2)}, 1, False, 999), Wait)
    assert decide(NEW, {"a": told(LONG, 0)}, 1, False, 31) == Replay("a", b"g"), (
        "an older program keeps all and says nothing"
    )


def test_who_was_away_gives_up_what_it_has_only_when_most_others_have_forgotten_what_follows() -> None:
    own = Own(5_000, chain=True, interrupted=False)
    heights = (LONG - 500, LONG - 1_500)
    assert decide(own, {"a": PRUNED, "b": PRUNED}, 3, False, 7) == Restore("a", b"g", heights, away=True)
    assert isinstance(decide(own, {"a": PRUNED, "b": PRUNED}, 3, False, 1), Wait)
    assert decide(own, {"a": PRUNED}, 3, False, 7) == GoOn(), "one of three is not enough"
    assert decide(own, {"a": PRUNED, "b": PRUNED, "c": told(LONG, 5_001)}, 3, False, 0) == GoOn()
    behind = {"a": PRUNED, "b": PRUNED, "c": told(4_000)}
    assert decide(own, behind, 3, False, 0) == Restore("a", b"g", heights, away=True), "who is behind can't help"
    assert decide(own, {"a": told(LONG, 9_000), "b": told(LONG, 9_000)}, 3, False, 7) == GoOn(), "no snapshot"
    assert decide(own, {}, 0, True, 0) == GoOn(), "a lone one has nobody to get anything from"
    assert decide(own, {"a": told(LONG, 0, (9_000,)), "b": told(LONG, 0, (9_000,))}, 2, True, 0) == GoOn()


def test_who_signs_alone_and_is_behind_is_an_old_copy_and_signs_nothing() -> None:
    """A backup from before the ledger grew: its key has signed blocks with the others since."""
    lone = Own(100, chain=True, interrupted=False, alone=True)
    grown = {"a": told(300), "b": told(299), "c": told(300)}
    assert decide(lone, grown, 3, True, 0) == Stale(300)
    assert decide(lone, {"a": PRUNED, "b": PRUNED, "c": PRUNED}, 3, True, 0) == Stale(LONG)
    assert decide(Own(100, chain=True, interrupted=False), grown, 3, True, 0) == GoOn(), "one of several catches up"
    after_a_crash = {"a": told(102), "b": told(102), "c": told(102)}
    assert decide(lone, after_a_crash, 3, True, 0) == GoOn()
    assert decide(lone, {"a": told(300), "b": told(100), "c": told(99)}, 3, True, 0) == GoOn(), "one may make it up"
    assert decide(lone, {}, 0, True, 0) == GoOn()


@given(
    height=st.integers(1, 50),
    answers=st.dictionaries(
        st.sampled_from("abc"),
        st.builds(told, st.integers(0, 60), st.integers(0, 60), st.lists(st.integers(1, 60), max_size=3)),
    ),
    founder=st.booleans(),
    waited=st.floats(0, 100),
)
def test_a_state_never_makes_way_while_any_peer_could_go_on_from_it(
    height: int, answers: dict[str, ledger_pb2.PeerResponse], founder: bool, waited: float
) -> None:
    step = decide(Own(height, chain=True, interrupted=False), answers, 3, founder, waited)
    assert not isinstance(step, Replay)
    if isinstance(step, Restore):
        living = [each for each in answers.values() if each.height]
        assert len([each for each in living if each.earliest_height > height + 1]) >= 2
        assert not [each for each in living if each.earliest_height <= height + 1 <= each.height]
        assert min(step.heights) > height


class Peer:
    """A ledger's service that says what it is told of any block; it may lie, which a real one can't be made to."""

    def __init__(self, directory: Path) -> None:
        self.says: str | None = None
        self.asked: list[int] = []
        files = (directory / "tls.key").read_bytes(), (directory / "tls.crt").read_bytes()
        self.server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._answer,
            request_deserializer=ledger_pb2.LightBlockRequest.FromString,
            response_serializer=ledger_pb2.LightBlockResponse.SerializeToString,
        )
        methods = {"LightBlock": handler}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hypermesh.v1.Ledger", methods),))
        port = self.server.add_secure_port("[::1]:0", grpc.ssl_server_credentials([files]))
        self.client = LedgerClient(f"[::1]:{port}", files[1])

    async def _answer(self, request: ledger_pb2.LightBlockRequest, context: grpc.aio.ServicerContext) -> object:
        self.asked.append(request.height)
        if self.says is None:
            text = f"height {request.height} is not available, lowest height is 9"
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, text)
        commit = {"signed_header": {"commit": {"height": str(request.height), "block_id": {"hash": self.says}}}}
        return ledger_pb2.LightBlockResponse(
            commit=json.dumps(commit).encode(), validators=b"{}", consensus_params=b"{"
        )


@pytest_asyncio.fixture
async def peers(tmp_path: Path) -> AsyncIterator[dict[str, Peer]]:
    write_tls(tmp_path)
    found = {name: Peer(tmp_path) for name in "abc"}
    for peer in found.values():
        await peer.server.start()
    yield found
    for peer in found.values():
        await peer.client.close()
        await peer.server.stop(0)


async def test_a_header_needs_more_than_two_thirds(peers: dict[str, Peer]) -> None:
    clients = {name: peer.client for name, peer in peers.items()}
    whole = dict.fromkeys("abc", told(20))
    good, bad = "A" * 64, "B" * 64
    for says, trusted in (
        ((good, good, good), Trust(9, good)),
        ((good, good, bad), None),
        ((good, good, None), None),
        (("x\n", "x\n", "x\n"), None),
    ):
        for peer, word in zip(peers.values(), says, strict=True):
            peer.says = word
        assert await agreed(clients, whole, (9,)) == trusted
    peers["a"].says = good
    assert await agreed(clients, {"a": told(20)}, (9, 8)) == Trust(9, good), "the only one that answers is believed"
    behind = {"a": told(20), "b": told(9), "c": told(20, 10)}
    assert await agreed(clients, behind, (9,)) is None, "one of three may make it up"
    peers["c"].says = good
    assert await agreed(clients, behind | {"c": told(20, 9)}, (9,)) == Trust(9, good), "who can't know has no say"
    peers["a"].says = None
    peers["a"].asked.clear()
    assert await agreed(clients, {"a": told(20), "b": SILENT}, (9, 8)) is None
    assert peers["a"].asked == [9, 8]


async def call(socket: Path, **request: object) -> dict[str, object]:
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.post("http://x/", json=request) as answer:
        found: dict[str, object] = await answer.json()
        return found


async def test_the_proxy_serves_what_a_light_client_asks_and_nothing_else(
    peers: dict[str, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    sockets = [Path("0.sock"), Path("1.sock")]
    peers["b"].says = "A" * 64
    proxies = await light_proxy.serve([peer.client for peer in peers.values()], sockets)
    try:
        asked = {"id": 7, "method": "commit", "params": {"height": "12"}}
        for socket in sockets:
            answer = await call(socket, **asked)
            assert answer["id"] == 7
            assert answer["result"]["signed_header"]["commit"]["height"] == "12"  # type: ignore[index]
            assert (await call(socket, **{**asked, "method": "validators"}))["result"] == {}
        assert peers["a"].asked == [12], "the second socket began with another peer"
        assert peers["b"].asked == [12, 12], "what was told is remembered"
        broken = await call(sockets[0], **{**asked, "method": "consensus_params"})
        assert broken["error"]["data"] == "a peer answered with no JSON"  # type: ignore[index]
        peers["b"].says = None
        gone = await call(sockets[0], **{**asked, "params": {"height": "3"}})
        assert gone["error"]["data"] == "height 3 is not available, lowest height is 9"  # type: ignore[index]
        for wrong in ({"method": "broadcast_tx_sync", "params": {"height": "1"}}, {"method": "commit"}, {"method": 5}):
            assert "not served here" in (await call(sockets[0], **wrong))["error"]["data"]  # type: ignore[index]
        assert "no request" in (await call(sockets[0], params="x"))["error"]["data"]  # type: ignore[index]
    finally:
        for proxy in proxies:
            await proxy.stop()


def test_a_restore_leaves_keys_and_what_was_signed(tmp_path: Path) -> None:
    kept = {"config/genesis.json", "config/priv_validator_key.json", "data/priv_validator_state.json"}
    gone = {"data/blockstore.db/CURRENT", "data/cs.wal/wal", "state/data.mdb", "snapshots/9/0"}
    for name in kept | gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert not fetching.interrupted(tmp_path)
    for _ in range(2):  # the second time after a crash
        fetching.begin(tmp_path)
        assert fetching.interrupted(tmp_path)
        assert all((tmp_path / name).read_text() == name for name in kept)
        assert not any((tmp_path / name).exists() for name in gone)
        assert (tmp_path / fetching.KEY).stat().st_mode & 0o777 == 0o600
    fetching.end(tmp_path)
    assert not fetching.interrupted(tmp_path)


def test_a_lone_ledger_does_not_begin_on_half_a_restore(tmp_path: Path) -> None:
    home.prepare(tmp_path, None, ledger_pb2.Genesis(root_public_key=b"root"))
    fetching.begin(tmp_path)
    with pytest.raises(HomeMismatch, match="in the middle of fetching"):
        home.prepare(tmp_path, None, ledger_pb2.Genesis(root_public_key=b"root"))


def test_while_a_snapshot_is_fetched_no_key_of_ours_signs() -> None:
    text = home.configuration(home.Network("[::]:26656", "", None, Trust(9, "A" * 64)))
    assert f'priv_validator_key_file = "{fetching.KEY}"' in text.split("[rpc]")[0]
    assert 'trust_height = 9\ntrust_hash = "AAAA' in text
    assert "statesync" not in home.configuration(home.Network("[::]:26656", "", None))


def test_a_restore_without_a_step_is_begun_again() -> None:
    now, step = [0.0], [0]
    steps = fetching.Steps(lambda: step[0], lambda: now[0])
    now[0] = fetching.SILENT_S
    assert not steps.silent()
    now[0] += 1
    assert steps.silent()
    step[0] += 1
    assert not steps.silent()


def test_short_is_no_longer_than_what_peers_keep_anyway() -> None:
    assert joining.SHORT_BLOCKS <= home.EVIDENCE_BLOCKS * 2
