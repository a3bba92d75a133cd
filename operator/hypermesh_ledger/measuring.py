"""This validator measures nodes that call, and tells the round trips beside its votes until the state has them.

    Measure (gRPC) -> greeting, hello, rounds, secret (hypermesh.places) -> waiting -> next vote's extension -> state

Only nodes that the ledger knows, that show their key, and that have no fresh bound of this validator; everything has a
limit in number and in time. Measuring delays no block, and a block that delays a round costs that round only: the
least of all counts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

from hypermesh import places
from hypermesh.digests import digest
from hypermesh.places import PlaceUnproven, Round
from hypermesh.v1 import ledger_pb2, place_pb2, trust_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.execution.context import Signer, read, signer_of
from hypermesh_ledger.execution.places import COUNTED
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.state import Reader

SESSIONS: Final = 16
"""Nodes that are measured at one time."""
CALLERS: Final = 64
"""Who has called, and not shown its key yet, at one time."""
WAITING: Final = 1_024
"""Round trips that the state does not have yet."""
HELLO_S: Final = 5.0
SESSION_S: Final = 20.0

Said = place_pb2.MeasureResponse
Heard = place_pb2.MeasureRequest


class Unmeasured(Exception):
    """Why a caller is not measured, as gRPC tells it."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Places:
    """One validator's; address: the first 20 bytes of SHA-256(consensus key); state: the newest committed one.

    All calls on one event loop.
    """

    def __init__(self, address: bytes, metrics: Metrics, state: Callable[[], Reader]) -> None:
        self._address = address
        self._state = state
        self._metrics = metrics
        self._callers = 0
        self._under_way: set[bytes] = set()
        self._waiting: dict[bytes, votes_pb2.RoundTrip] = {}
        """By node."""

    # -- beside votes ------------------------------------------------------------------------------------------------

    def told(self) -> list[votes_pb2.RoundTrip]:
        """For the next vote, in an order that nobody could choose; those that would come too late are dropped."""
        epoch = self._epoch()
        self._waiting = {node: trip for node, trip in self._waiting.items() if trip.epoch + 1 >= epoch.number}
        order = sorted(self._waiting, key=lambda node: digest("place/order", epoch.beacon, self._address, node))
        return [self._waiting[node] for node in order[:COUNTED]]

    def committed(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """What a block has written."""
        if not self._waiting:
            return
        for key, value in writes:
            if value is not None and key.startswith(keys.PLACE):
                record = votes_pb2.PlaceRecord.FromString(value)
                trip = self._waiting.get(record.node)
                if trip is not None and any(each.epoch >= trip.epoch for each in self._mine(record)):
                    del self._waiting[record.node]

    def _mine(self, record: votes_pb2.PlaceRecord | None) -> list[votes_pb2.PlaceRecord.Bound]:
        """This validator's own bound, if it is there."""
        bounds = record.bounds if record is not None else ()
        return [each for each in bounds if each.validator == self._address]

    def _epoch(self) -> ledger_pb2.Epoch:
        return read(self._state(), keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()

    # -- sessions ----------------------------------------------------------------------------------------------------

    async def measure(self, context: Any) -> None:
        """One session, to its end. Aborts with the reason when there is none."""
        try:
            async with asyncio.timeout(SESSION_S):
                trip = await self._session(context)
        except (Unmeasured, PlaceUnproven, TimeoutError) as error:
            code, text = _told_as(error)
            self._metrics.measured("refused" if isinstance(error, Unmeasured) else "failed")
            await context.abort(code, text)
            raise AssertionError from error  # abort has raised
        self._waiting[trip.node] = trip
        self._metrics.measured("measured")
        await context.write(Said(bound=Said.Bound(microseconds=trip.microseconds, epoch=trip.epoch)))

    async def _session(self, context: Any) -> votes_pb2.RoundTrip:
        async with self._caller():
            seed = secrets.token_bytes(places.NONCE_BYTES)
            signer, committed = await self._introduced(context, places.seed_commitment(seed))
        async with self._one_of_few(signer.key_id):
            rounds = [await _round(context, number, each) for number, each in enumerate(places.challenges(seed))]
            await context.write(Said(seed=seed))
            least = places.least_us(committed, (await _heard(context, "secret")).secret, rounds)
        return votes_pb2.RoundTrip(node=signer.key_id, epoch=self._epoch().number, microseconds=least)

    @asynccontextmanager
    async def _caller(self) -> AsyncIterator[None]:
        state = self._state()
        begun = state.get(keys.EXTENSIONS) is not None
        members = extensions.signers(state, 1 << 62) if begun else {}
        if self._address not in members or len(members) < places.PLACED:
            text = f"only one of {places.PLACED} or more validators that extend votes measures round trips"
            raise Unmeasured(grpc.StatusCode.FAILED_PRECONDITION, text)
        if self._callers >= CALLERS:
            raise Unmeasured(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many call at one time; call again later")
        self._callers += 1
        try:
            async with asyncio.timeout(HELLO_S):
                yield
        finally:
            self._callers -= 1

    async def _introduced(self, context: Any, nonce: bytes) -> tuple[Signer, bytes]:
        """The node, and what it committed to."""
        await context.write(Said(greeting=Said.Greeting(validator=self._address, nonce=nonce)))
        hello = (await _heard(context, "hello")).hello
        known = len(hello.node) == len(hello.commitment) == 32  # the database refuses long keys by an error
        state = self._state()
        signer = signer_of(state, hello.node) if known else None
        if signer is None or signer.body.role != trust_pb2.ROLE_NODE:
            raise PlaceUnproven("no such node is enrolled")
        if not signer.body.not_before <= time.time() < signer.body.not_after:
            raise PlaceUnproven("the node's certificate does not hold now")
        chain_id = (state.get(keys.CHAIN_ID) or b"").decode()
        if not places.session_signed(signer.public, hello.signature, chain_id, self._address, nonce, hello.commitment):
            raise PlaceUnproven("the hello is not signed by the node for this session")
        return signer, hello.commitment

    @asynccontextmanager
    async def _one_of_few(self, node: bytes) -> AsyncIterator[None]:
        mine = self._mine(read(self._state(), keys.place(node), votes_pb2.PlaceRecord))
        epoch = self._epoch().number
        if node in self._waiting or any(each.epoch + places.MEASURED_AGAIN > epoch for each in mine):
            raise Unmeasured(grpc.StatusCode.ALREADY_EXISTS, "the node has a fresh bound of this validator")
        if node in self._under_way or len(self._under_way) >= SESSIONS or len(self._waiting) >= WAITING:
            raise Unmeasured(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many are measured now; call again later")
        self._under_way.add(node)
        try:
            yield
        finally:
            self._under_way.discard(node)


async def _round(context: Any, number: int, challenge: bytes) -> Round:
    asked = time.perf_counter_ns()
    async with asyncio.timeout(places.LONGEST_US / 1_000_000):
        await context.write(Said(challenge=challenge))
        heard = await _heard(context, "answer")
    if len(heard.answer) != places.ANSWER_BYTES:  # a message may be large, and it is kept until the end
        raise PlaceUnproven(f"the answer of round {number} is not one of {places.ANSWER_BYTES} bytes")
    return Round(challenge, heard.answer, (time.perf_counter_ns() - asked) // 1000)


async def _heard(context: Any, what: str) -> Heard:
    """The caller's next message, which must be of that kind."""
    heard = await context.read()
    if not isinstance(heard, Heard) or heard.WhichOneof("said") != what:
        raise PlaceUnproven(f"the caller's {what} is missing")
    return heard


def _told_as(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, Unmeasured):
        return error.code, str(error)
    if isinstance(error, PlaceUnproven):
        return grpc.StatusCode.PERMISSION_DENIED, str(error)
    return grpc.StatusCode.DEADLINE_EXCEEDED, "the caller did not answer in time"
