"""A marker never overtakes the batch of its block, even when the block comes the moment the marker's time is up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys, watches
from hypermesh_ledger.store import Store
from hypermesh_ledger.watches import Watches


def commit(store: Store, followers: Watches, number: int) -> None:
    """Block `number` with one asset of that name."""
    registration = ledger_pb2.RegisterAsset(asset_id=number.to_bytes(32, "big"), name=f"a{number}")
    record = ledger_pb2.AssetRecord(registration=registration).SerializeToString(deterministic=True)
    prepared = store.prepare(number, number, {keys.asset(registration.asset_id): record})
    store.commit(prepared)
    store.advance(prepared)
    followers.publish(prepared.writes.items(), store.head)


async def test_no_height_is_ahead_of_its_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MARKER_S", 0.002)
    store = Store(tmp_path)
    followers = Watches(store)
    commit(store, followers, 1)
    seen: set[str] = set()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        async for batch in followers.follow(b"", ledger_pb2.StatusResponse(height=1)):
            for change in batch.changes:
                seen.add(change.asset.registration.name)
                height = change.block.height
                assert not height or f"a{height}" in seen
            if store.head.height == 200:
                break
            if f"a{store.head.height}" in seen:
                loop.call_later(0.002, commit, store, followers, store.head.height + 1)
    store.close()
