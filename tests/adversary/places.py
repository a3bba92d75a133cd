"""A wire between a node and the validator that measures it, without gRPC; and whoever lies on the node's side of it.

The wire is a double of gRPC's stream alone: both ends are the real ones (hypermesh_ledger.measuring, and
hypermesh_clients.places for honest nodes). tests/integration/ledger/inside_places.py has real streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from hypermesh import falcon, places
from hypermesh.v1 import place_pb2
from hypermesh_ledger.measuring import Places

Said = place_pb2.MeasureRequest


class Aborted(Exception):
    """What gRPC raises inside a handler that aborts."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class Wire:
    """The validator's end has `read`, `write`, `abort`; the node's is `node`."""

    def __init__(self) -> None:
        self._up: asyncio.Queue[Any] = asyncio.Queue()
        self._down: asyncio.Queue[Any] = asyncio.Queue()
        self.node = _End(self._down, self._up)

    async def read(self) -> Any:
        return await self._up.get()

    async def write(self, message: Any) -> None:
        await self._down.put(message)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        await self._down.put(grpc.aio.EOF)
        raise Aborted(code, details)


class _End:
    def __init__(self, heard: asyncio.Queue[Any], said: asyncio.Queue[Any]) -> None:
        self._heard, self._said = heard, said

    async def read(self) -> Any:
        return await self._heard.get()

    async def write(self, message: Any) -> None:
        await self._said.put(message)

    def done_writing(self) -> None:
        self._said.put_nowait(grpc.aio.EOF)

    async def code(self) -> None: ...

    async def details(self) -> None: ...


Caller = Callable[[Any], Awaitable[Any]]


async def between(validator: Places, caller: Caller) -> Aborted | None:
    """One session; why the validator ended it, or None when it measured."""
    wire = Wire()
    calling = asyncio.ensure_future(caller(wire.node))
    try:
        await validator.measure(wire)
    except Aborted as aborted:
        return aborted
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    return None


class Node:
    """An honest node in steps, each of which a cheat can replace."""

    def __init__(self, keypair: falcon.KeyPair, chain_id: str) -> None:
        self.keypair, self.chain_id = keypair, chain_id
        self.secret = b"s" * places.SECRET_BYTES

    def hello(self, greeting: place_pb2.MeasureResponse.Greeting) -> place_pb2.MeasureRequest.Hello:
        committed = places.commitment(self.secret)
        signature = places.sign_session(
            self.keypair.secret, self.chain_id, greeting.validator, greeting.nonce, committed
        )
        return Said.Hello(node=self.keypair.key_id(), commitment=committed, signature=signature)

    async def answer(self, number: int, challenge: bytes) -> bytes:
        return places.answer(self.secret, number, challenge)

    def opened(self) -> bytes:
        return self.secret

    async def __call__(self, end: Any) -> None:
        await end.write(Said(hello=self.hello((await end.read()).greeting)))
        for number in range(places.ROUNDS):
            await end.write(Said(answer=await self.answer(number, (await end.read()).challenge)))
        await end.read()
        await end.write(Said(secret=self.opened()))
        await asyncio.Event().wait()
