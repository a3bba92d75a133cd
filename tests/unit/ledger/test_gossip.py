"""What ledgers tell each other, over real TLS on ::1: each operation once, all that waits to who begins to listen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from hypermesh import operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import PENDING_BYTES, LedgerClient, LedgerUnavailable
from hypermesh_ledger import admission, hearing, ingress, telling
from hypermesh_ledger.checks import Signature, Verify
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Block
from hypermesh_ledger.federation import FileFederation
from hypermesh_ledger.hearing import Hearing
from hypermesh_ledger.telling import Telling
from hypermesh_ledger.verdicts import Unsettled
from hypermesh_ledger.watches import TooMany, TooSlow

from ...builders import allocation
from ...integration.ledger_fixture import write_tls
from .test_core import core_of, until
from .world import Settled

NOISE = b"noise" * 1_000


@dataclass(frozen=True)
class Ledger:
    """One that tells, and a client of it."""

    core: Core
    client: LedgerClient

    def hearing(self, *peers: LedgerClient) -> asyncio.Task[None]:
        """Until it is cancelled."""
        return asyncio.create_task(Hearing(self.core.admission, self.core.pool, peers, lambda: True).run())


@contextlib.asynccontextmanager
async def ledger(settled: Settled, place: Path, name: str) -> AsyncIterator[Ledger]:
    """With a service of its own."""
    core, verifier = core_of(settled, place / name, gossip=True)
    core.telling = Telling(core.pool)
    server, port = ingress.make_server(core, "[::1]:0", tls(place))
    await server.start()
    client = LedgerClient(f"[::1]:{port}", (place / "tls.crt").read_bytes(), "localhost")
    work = asyncio.create_task(core.telling.run())
    try:
        yield Ledger(core, client)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await client.close()
        await server.stop(0)
        await verifier.close()
        core.store.close()


def tls(place: Path) -> FileFederation:
    if not (place / "tls.crt").exists():
        (place / "root.pub").write_bytes(b"r" * 1793)
        write_tls(place)
    return FileFederation(place / "root.pub", place / "tls.crt", place / "tls.key", place / "tls.crt", None)


@pytest_asyncio.fixture
async def two(settled: Settled, tmp_path: Path) -> AsyncIterator[tuple[Ledger, Ledger]]:
    async with ledger(settled, tmp_path, "first") as first, ledger(settled, tmp_path, "second") as second:
        yield first, second


@contextlib.asynccontextmanager
async def liar(place: Path, messages: Sequence[bytes]) -> AsyncIterator[LedgerClient]:
    """A peer that tells exactly this, to everybody who asks, and no more."""

    async def pending(_: object, context: Any) -> None:
        for message in messages:
            await context.write(message)
        await asyncio.sleep(60)

    async def submit_many(_: object, context: Any) -> None:
        await context.write(b"\xff")

    stream = grpc.unary_stream_rpc_method_handler
    methods = {"Pending": stream(pending), "SubmitMany": stream(submit_many)}
    handlers = grpc.method_handlers_generic_handler("hypermesh.v1.Ledger", methods)
    server, port = ingress._listening(handlers, "[::1]:0", tls(place))
    await server.start()
    client = LedgerClient(f"[::1]:{port}", (place / "tls.crt").read_bytes(), "localhost")
    try:
        yield client
    finally:
        await client.close()
        await server.stop(0)


def leases(settled: Settled, *names: str, amount: int = 1) -> list[bytes]:
    return [settled.allocate(allocation(settled.node, settled.cpu, name, amount)) for name in names]


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def drained(told: AsyncIterator[bytes]) -> None:
    async for _ in told:
        pass


def message(*envelopes: bytes) -> bytes:
    return ledger_pb2.PendingResponse(envelopes=envelopes).SerializeToString()


async def test_what_waits_and_what_comes_is_heard_once_and_not_told_again(
    two: tuple[Ledger, Ledger], settled: Settled
) -> None:
    first, second = two
    before, after = leases(settled, "before", "after")
    assert await first.core.admission.admit(before, operations.tx_hash(before)) is None
    await asyncio.sleep(0.1)
    assert second.core.telling is not None
    third = asyncio.create_task(anext(second.core.telling.listen("third")))
    listening = second.hearing(first.client)
    await until(lambda: len(second.core.pool) == 1)
    assert await first.core.admission.admit(after, operations.tx_hash(after)) is None
    await until(lambda: len(second.core.pool) == 2)
    await asyncio.sleep(0.1)
    assert not third.done(), "the first tells everybody"
    (own,) = leases(settled, "own")
    assert await second.core.admission.admit(own, operations.tx_hash(own)) is None
    assert await third == message(own)
    await stopped(listening)
    await until(lambda: first.core.telling is not None and not len(first.core.telling))


async def test_what_lingers_is_submitted_to_a_peer_that_does_not_listen(
    two: tuple[Ledger, Ledger], settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "LINGER_S", 0.2)
    first, second = two
    (tx,) = leases(settled, "lingers")
    async with liar(tmp_path, []) as peer:
        listening = second.hearing(peer, first.client)
        assert await second.core.admission.admit(tx, operations.tx_hash(tx)) is None
        await until(lambda: len(first.core.pool) == 1)
        assert not listening.done(), "whatever one answers"
        await stopped(listening)


async def test_who_can_not_keep_up_is_cut_off_and_no_more_than_so_many_listen(
    two: tuple[Ledger, Ledger], settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    teller = first.core.telling
    assert teller is not None
    monkeypatch.setattr(telling, "BEHIND_BYTES", 3_000)
    slow = teller.listen("slow")
    waiting = asyncio.create_task(anext(slow))
    await until(lambda: len(teller) == 1)
    for tx in leases(settled, "one", "two", "three"):
        assert await first.core.admission.admit(tx, operations.tx_hash(tx)) is None
        await until(lambda: not first.core.pool._news.is_set())
        await asyncio.sleep(telling.PAUSE_S * 2)
    assert await waiting
    with pytest.raises(TooSlow):
        await drained(slow)
    assert not len(teller)
    monkeypatch.setattr(telling, "LISTENERS", 0)
    with pytest.raises(TooMany):
        await anext(teller.listen("one"))
    with pytest.raises(LedgerUnavailable, match="too many listen"):
        await anext(first.client.pending())
    monkeypatch.setattr(telling, "LISTENERS", 9)
    strangers = [asyncio.create_task(anext(first.client.pending())) for _ in range(telling.OF_ONE_HOST)]
    await until(lambda: len(teller) == telling.OF_ONE_HOST)
    with pytest.raises(LedgerUnavailable, match="too many listen"):
        await anext(first.client.pending())
    await stopped(*strangers)
    second.core.telling = None
    with pytest.raises(LedgerUnavailable, match="without peers"):
        await anext(second.client.pending())


@pytest.mark.parametrize("wrong", [b"\xff", message(bytes(PENDING_BYTES)), message(NOISE, *[b""] * 10)])
async def test_what_is_no_message_ends_the_stream(tmp_path: Path, wrong: bytes) -> None:
    async with liar(tmp_path, [message(NOISE), wrong]) as peer:
        told = peer.pending()
        assert list(await anext(told)) == [NOISE]
        with pytest.raises(LedgerUnavailable, match="tells"):
            await anext(told)


async def test_a_peer_that_lies_takes_nobody_the_room(
    two: tuple[Ledger, Ledger], settled: Settled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise, copies, and what waits for proofs, more of it than may: what comes after is heard, and from others all."""
    monkeypatch.setattr(hearing, "PROOFS", 1)
    monkeypatch.setattr(hearing, "AT_ONCE", 2)
    first, second = two
    *slow, good, other = leases(settled, "slow", "slow-too", "good", "other")
    proven, judged = asyncio.Event(), second.core.admission._height

    def height(block: Block, decoded: operations.Decoded, heard: bool, verify: Verify) -> int:
        if decoded.raw in slow and not proven.is_set():
            raise Unsettled(Signature(b"", b"", b"", b""))
        return judged(block, decoded, heard, verify)

    async def settle(*_: object) -> None:
        await proven.wait()

    monkeypatch.setattr(second.core.admission, "_height", height)
    monkeypatch.setattr(second.core.verdicts, "settle", settle)
    assert await first.core.admission.admit(other, operations.tx_hash(other)) is None
    async with liar(tmp_path, [message(NOISE, *slow, slow[0], b"", NOISE), message(good)]) as peer:
        listening = second.hearing(peer, first.client)
        await until(lambda: operations.tx_hash(other) in second.core.pool)
        assert operations.tx_hash(good) not in second.core.pool, "its peer tells too much that has to be proven"
        proven.set()
        await until(lambda: len(second.core.pool) == 4)
        await stopped(listening)


async def test_an_allocates_terms_are_left_to_its_block_when_a_peer_told_it_and_when_many_wait(
    two: tuple[Ledger, Ledger], settled: Settled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a block has refused is judged: whoever brings it again would fill its signer's share with it."""
    core = two[0].core
    (heard,) = leases(settled, "heard", amount=101)
    (busy,) = leases(settled, "busy", amount=101)
    (forged,) = leases(settled, "forged")
    spoilt = operations.decode(forged).envelope
    spoilt.signature = operations.decode(heard).envelope.signature
    assert not await core.admission.hear([heard, operations.canonical(spoilt)])
    assert core.pool.take(1 << 20, 0) == [heard]
    monkeypatch.setattr(admission, "BUSY", 1)
    assert await core.admission.admit(busy, operations.tx_hash(busy)) is None
    waiting = [asyncio.create_task(core.admission.submit(each)) for each in (heard, busy)]
    await until(lambda: len(core.pool._waiters) == 2)
    await core.finalize(Block(settled.height + 1, settled.now_ms + 10, b"h" * 32, [heard, busy]))
    await core.commit()
    assert [each.reason for each in await asyncio.gather(*waiting)] == [Reason.InsufficientCapacity] * 2
    monkeypatch.setattr(core.admission, "_decided", {})  # of too many others since
    monkeypatch.setattr(admission, "BUSY", 0)
    assert not await core.admission.hear([heard, busy])
    assert not len(core.pool)
