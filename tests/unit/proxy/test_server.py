"""The resource service over real TLS on the loopback: strangers hold nothing, late bodies end, each has a share."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tls_papers import tls_identity

from hypermesh import addressing
from hypermesh.v1 import ledger_pb2, resource_pb2, resource_pb2_grpc
from hypermesh_agent.enforcement.regions import FileRegion
from hypermesh_agent.serving import server as serving
from hypermesh_agent.serving.authorization import Desk, Served
from hypermesh_agent.serving.server import ResourceServer
from hypermesh_clients.resource import ResourceClient

PREFIX = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
ADDRESS = IPv6Address("fd12:3456:789a:1:1122:3340::1")
TOKEN = secrets.token_urlsafe(32)
SIZE = 1 << 21
SERVICE = "/hypermesh.v1.Resource/"


@dataclass
class Here:
    """The server that runs, and a channel to it."""

    server: ResourceServer
    desk: Desk
    channel: grpc.aio.Channel
    served: Served
    connect: Callable[[int], grpc.aio.Channel]

    def metadata(self, token: str = TOKEN) -> tuple[tuple[str, str], ...]:
        return (("hypermesh-address", str(ADDRESS)), ("authorization", f"Bearer {token}"))

    def open_call(self, token: str, channel: grpc.aio.Channel | None = None) -> Any:
        """A call whose headers are sent and whose body never is."""
        call = (channel or self.channel).stream_unary(SERVICE + "Write")
        return call(metadata=self.metadata(token), timeout=30)

    async def ask(self, method: str, request: Any, token: str = TOKEN) -> bytes:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        answer = await self.channel.unary_unary(SERVICE + method)(
            body, metadata=self.metadata(token), timeout=20, wait_for_ready=True
        )
        return bytes(answer)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    (tmp_path / "region").write_bytes(bytes(SIZE))
    desk = Desk("node-1", PREFIX)
    served = Served(
        address=ADDRESS.packed,
        capability_hash=hashlib.sha256(TOKEN.encode()).digest(),
        type=ledger_pb2.ASSET_TYPE_STORAGE,
        amount=SIZE,
        expires_ms=time.time_ns() // 1_000_000 + 3_600_000,
        node_name="node-1",
        asset_name="node-1-pool",
        attributes=dict,
        region=FileRegion(tmp_path / "region", SIZE, may_wait=True),
    )
    desk.open(served)
    tls = tls_identity(addressing.tls_name(ADDRESS))
    server = ResourceServer(desk, tls, "::1", 0)
    port = server.bind()
    credentials = grpc.ssl_channel_credentials(tls.root_pem)

    def connect(number: int) -> grpc.aio.Channel:
        """One connection a number: channels of the same options would share theirs."""
        options = [("grpc.ssl_target_name_override", addressing.tls_name(ADDRESS)), ("test.number", number)]
        return grpc.aio.secure_channel(f"ipv6:[::1]:{port}", credentials, options)

    async with connect(-1) as channel:
        yield Here(server, desk, channel, served, connect)
    await server.stop(0)


async def code(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    reason = dict(failure.value.trailing_metadata() or ()).get("hypermesh-reason", "")
    return failure.value.code(), str(reason)


async def test_bytes_go_there_and_come_back(here: Here) -> None:
    await here.server.start()
    data = secrets.token_bytes(1 << 20)
    written = await here.ask("Write", resource_pb2.WriteRequest(offset=5, data=data))
    assert resource_pb2.WriteResponse.FromString(written).written == 1 << 20
    read = await here.ask("Read", resource_pb2.ReadRequest(offset=5, length=1 << 20))
    assert resource_pb2.ReadResponse.FromString(read).data == data
    described = resource_pb2.DescribeResponse.FromString(await here.ask("Describe", b""))
    assert (described.address, described.size) == (str(ADDRESS), SIZE)


async def test_a_stranger_is_refused_before_any_body(here: Here) -> None:
    """More header-only calls than there are slots: all refused at once, and the tenant is served."""
    await here.server.start()
    channels = [here.connect(number) for number in range(2 * serving._CONCURRENT_CALLS // 16)]
    try:
        calls = [here.open_call("wrong", channel) for channel in channels for _ in range(16)]
        for call in calls:
            assert await code(call) == (grpc.StatusCode.PERMISSION_DENIED, "TokenWrong")
        await here.ask("Describe", b"")
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def test_a_body_that_does_not_come_ends_the_call(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BODY_S", 0.2)
    await here.server.start()
    assert await code(here.open_call(TOKEN)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RequestLate")
    await here.ask("Describe", b"")


async def test_one_address_has_its_share_and_gets_it_back(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_CALLS_AN_ADDRESS", 4)
    monkeypatch.setattr(serving, "_BODY_S", 2.0)
    await here.server.start()
    held = [here.open_call(TOKEN) for _ in range(5)]
    reasons = sorted([reason for _, reason in await asyncio.gather(*map(code, held))])
    assert reasons == ["RequestLate"] * 4 + ["TooManyCalls"]
    await here.ask("Describe", b"")


async def test_what_is_no_request_is_said_to_be_none(here: Here) -> None:
    await here.server.start()
    invalid = grpc.StatusCode.INVALID_ARGUMENT, "Malformed"
    assert await code(here.ask("Read", b"\xff\xff")) == invalid
    empty = here.open_call(TOKEN)
    await empty.done_writing()
    assert await code(empty) == invalid
    assert (await code(here.ask("Nothing", b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_callers_wait_from_bind_to_start(here: Here) -> None:
    """An agent that starts again knows every address before it answers the first call."""
    here.desk.close(ADDRESS.packed)
    asked = asyncio.create_task(here.ask("Describe", b""))
    await asyncio.sleep(0.3)
    assert not asked.done()
    here.desk.open(here.served)
    await here.server.start()
    assert resource_pb2.DescribeResponse.FromString(await asked).size == SIZE


async def test_an_address_that_is_opened_again_is_asked_for_again(here: Here) -> None:
    here.desk.close(ADDRESS.packed)
    here.desk.expect(ADDRESS.packed)
    await here.server.start()
    assert await code(here.ask("Describe", b"")) == (grpc.StatusCode.UNAVAILABLE, "AddressOpening")
    async with ResourceClient(str(ADDRESS), TOKEN, b"", patience=20) as client:
        client._stub = resource_pb2_grpc.ResourceStub(here.channel)  # type: ignore[no-untyped-call]
        asked = asyncio.create_task(client.describe())
        await asyncio.sleep(0.3)
        assert not asked.done(), "it asks again by itself"
        here.desk.open(here.served)
        assert (await asked).size == SIZE


async def test_a_server_that_never_started_stops(here: Here) -> None:
    await here.server.stop()
