"""A chain recorded before trust scores moved gives the same app hashes, block by block.

old_chain.json.xz holds the genesis and the blocks that an older program executed (enrolments, a whole round of proofs,
an asset, leases that ended and were released, epochs of silence, four validators, one of whom lies), and its app
hashes.
"""

from __future__ import annotations

import base64
import json
import lzma
from pathlib import Path
from typing import Any

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, Lie, Vote, execute
from hypermesh_ledger.store import Store

CHAIN = Path(__file__).with_name("old_chain.json.xz")


def block(told: dict[str, Any]) -> Block:
    return Block(
        told["height"],
        told["time_ms"],
        bytes.fromhex(told["hash"]),
        [base64.b85decode(tx) for tx in told["txs"]],
        [Vote(bytes.fromhex(address), signed) for address, signed in told["votes"]],
        [Lie(bytes.fromhex(address), kind, height, at) for address, kind, height, at in told["lies"]],
    )


def test_an_old_chain_replays_to_its_own_app_hashes(tmp_path: Path) -> None:
    document = json.loads(lzma.decompress(CHAIN.read_bytes()))
    store = Store(tmp_path)
    first = store.prepare(0, 0, {bytes.fromhex(k): bytes.fromhex(v) for k, v in document["start"].items()})
    store.commit(first)
    store.advance(first)
    assert len(document["blocks"]) > 30
    for told in document["blocks"]:
        outcome = execute(store.snapshot, block(told), verify_now)
        prepared = store.prepare(told["height"], told["time_ms"], outcome.writes)
        store.commit(prepared)
        store.advance(prepared)
        assert [str(result.reason or "") for result in outcome.results] == told["reasons"], told["height"]
        assert prepared.head.app_hash.hex() == told["app_hash"], told["height"]
    for prefix in (keys.TRUST, keys.OWED, keys.FORGIVEN):
        assert not list(store.snapshot.scan(prefix)), prefix
    scores = {ledger_pb2.NodeRecord.FromString(value).trust_score for _, value in store.snapshot.scan(keys.NODE)}
    assert scores == {5_000}
    store.close()
