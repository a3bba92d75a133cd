"""A ledger that says no sense, or ends too early, over real gRPC: the agent is told NotMeasured, and nothing else.

Whatever else a part of the agent raises ends the agent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from hypermesh import falcon
from hypermesh.v1 import place_pb2
from hypermesh_clients.places import NotMeasured, be_measured, measured_by

Heard = place_pb2.MeasureResponse
GREETING = Heard(greeting=Heard.Greeting(validator=b"v" * 20, nonce=b"n" * 32)).SerializeToString()
CHALLENGE = Heard(challenge=b"c" * 32).SerializeToString()


async def nothing(_: Any) -> None: ...


async def no_message(context: Any) -> None:
    await context.write(b"\xff\xff\xff")
    await context.read()


async def nonsense_after_greeting(context: Any) -> None:
    await context.write(GREETING)
    await context.read()
    await context.write(b"\x0a\xff")
    await context.read()


async def ended_after_greeting(context: Any) -> None:
    """While the node signs."""
    await context.write(GREETING)


async def ended_in_a_round(context: Any) -> None:
    await context.write(GREETING)
    await context.read()
    await context.write(CHALLENGE)


async def refused_after_greeting(context: Any) -> None:
    await context.write(GREETING)
    await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")


@pytest.fixture(scope="module")
def keypair() -> falcon.KeyPair:
    return falcon.generate()


@pytest.mark.parametrize(
    "says",
    [nothing, no_message, nonsense_after_greeting, ended_after_greeting, ended_in_a_round, refused_after_greeting],
)
async def test_the_session_ends_with_a_reason(says: Callable[[Any], Awaitable[None]], keypair: falcon.KeyPair) -> None:
    async def measure(_: Any, context: Any) -> None:
        await says(context)

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(measure)
    service = grpc.method_handlers_generic_handler("hypermesh.v1.Ledger", {"Measure": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("[::1]:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
            for _ in range(5):  # what the node meets first depends on who is faster
                with pytest.raises(NotMeasured):
                    await measured_by(channel, "it", keypair, "chain")
    finally:
        await server.stop(None)


async def test_a_ledger_that_is_not_there_is_a_reason(keypair: falcon.KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypermesh_clients.places.CONNECT_MS", 100)
    with pytest.raises(NotMeasured, match="UNAVAILABLE"):
        await be_measured("[::1]:1", b"", None, keypair, "chain")
