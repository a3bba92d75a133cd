"""Followers: a copy that is whole while blocks come, and slow or many ones who harm nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from hypermesh.v1 import ledger_pb2, ledger_pb2_grpc
from hypermesh_clients.mirror import View
from hypermesh_ledger import ingress, keys, watches
from hypermesh_ledger.core import Core
from hypermesh_ledger.federation import FileFederation
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.state import Writes
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier
from hypermesh_ledger.watches import TooMany, TooSlow, Watches

from ...integration.ledger_fixture import write_tls

STATUS = ledger_pb2.StatusResponse(height=1)


def allocation(number: int, height: int, padding: int = 0) -> tuple[bytes, bytes]:
    """A record's key and value."""
    name = number.to_bytes(32, "big")
    record = ledger_pb2.AllocationRecord(allocation_id=name, height=height, envelope=b"x" * padding)
    return keys.allocation(name), record.SerializeToString()


def apply(store: Store, writes: Writes, following: Watches | None = None) -> None:
    """One block."""
    height = store.head.height + 1
    prepared = store.prepare(height, height * 1_000, writes)
    store.commit(prepared)
    store.advance(prepared)
    if following is not None:
        following.publish(writes.items(), store.head)


async def until_synced(batches: AsyncIterator[ledger_pb2.Changes]) -> None:
    async for batch in batches:
        if any(change.synced for change in batch.changes):
            return


async def read_all(call: grpc.aio.UnaryStreamCall[ledger_pb2.WatchRequest, ledger_pb2.Changes]) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "state")
    apply(made, dict(allocation(number, 1) for number in range(1_000)))
    return made


async def test_a_copy_is_whole_while_blocks_come(store: Store) -> None:
    following, view, synced = Watches(store), View(), False
    async with aclosing(following.follow(b"", STATUS)) as batches:
        changed = 0
        async for batch in batches:
            for change in batch.changes:
                view.apply(change)
                synced = synced or change.synced
            if synced:
                break
            if changed < 8:  # between two messages: change what was copied already, and what was not; remove; add
                changed += 1
                height = store.head.height + 1
                writes: Writes = dict(allocation(n, height) for n in (changed, 500 + changed, 5_000 + changed))
                writes |= {allocation(n, 0)[0]: None for n in (100 + changed, 900 + changed)}
                apply(store, writes, following)
        assert changed > 3
    held = {key.removeprefix(keys.ALLOCATION): value for key, value in store.snapshot.scan(keys.ALLOCATION)}
    assert {name: record.SerializeToString() for name, record in view.allocations.items()} == held
    assert view.height == store.head.height
    store.close()


async def test_stalled_followers_hold_nothing_but_their_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than LMDB has had readers by default (126), all stuck in the middle of their copy."""
    monkeypatch.setattr(watches, "FOLLOWERS", 200)
    following = Watches(store)
    stalled = [following.follow(b"", STATUS) for _ in range(200)]
    for each in stalled:
        await anext(each)
        await anext(each)
    apply(store, dict([allocation(1, 2)]), following)
    with pytest.raises(TooMany):
        await anext(following.follow(b"", STATUS))
    assert store._environment.info()["num_readers"] < 10
    for each in stalled:
        await each.aclose()
    assert len(following) == 0
    store.close()


@pytest.mark.parametrize(("limit", "value"), [("QUEUE", 3), ("QUEUE_BYTES", 5_000)])
async def test_who_lags_is_cut_off_before_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(watches, limit, value)
    following = Watches(store)
    async with aclosing(following.follow(b"", STATUS)) as batches:
        await anext(batches)
        for number in range(4):
            apply(store, dict([allocation(number, 2, padding=2_000)]), following)
        with pytest.raises(TooSlow):
            await until_synced(batches)
    store.close()


@pytest_asyncio.fixture
async def core(store: Store) -> AsyncIterator[Core]:
    verdicts = Verdicts(Verifier())
    yield Core(store, verdicts, Pool(), Metrics(CollectorRegistry()))
    store.close()


async def test_a_client_that_does_not_read_is_let_go(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingress, "WRITE_S", 0.3)
    apply(core.store, dict(allocation(number, 2, padding=20_000) for number in range(2_000)))
    ca_pem = write_tls(tmp_path)
    (tmp_path / "root.pub").write_bytes(b"unused")
    tls = FileFederation(tmp_path / "root.pub", tmp_path / "tls.crt", tmp_path / "tls.key")
    server, port = ingress.make_server(core, "[::1]:0", tls)
    await server.start()
    channel = grpc.aio.secure_channel(f"[::1]:{port}", grpc.ssl_channel_credentials(ca_pem))
    stub = ledger_pb2_grpc.LedgerStub(channel)  # type: ignore[no-untyped-call]
    try:
        call = stub.Watch(ledger_pb2.WatchRequest())
        await call.read()
        assert len(core.watches) == 1
        async with asyncio.timeout(20):
            while len(core.watches):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
            await stub.Status(ledger_pb2.StatusRequest())
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_all(call)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        await channel.close()
        await server.stop(None)
