"""The same blocks give the same app hashes: in another process, under another hash seed, on disk and in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hypermesh.operations import TICKETLESS
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, execute
from hypermesh_ledger.store import Store

from ...builders import allocation, registration
from . import proofs
from .world import CPU, Settled, World


def history(settled: Settled, plot: Path) -> None:
    """Some of everything, good and refused, over several epochs."""
    commitment = proofs.commitment(settled, settled.node, settled.cpu_id)
    committed = settled.tx(settled.node, commit_work=commitment)
    settled.block(committed, committed)
    proof = proofs.proof(settled, settled.node, plot)
    good = settled.tx(settled.node, prove=proof)
    proof.time.output = proof.time.output[::-1]
    results = settled.block(settled.tx(settled.node, prove=proof), good, good)
    assert [result.reason for result in results] == [Reason.TimeProofInvalid, None, Reason.AlreadyProven]
    for index in range(12):
        settled.block(
            *(
                settled.allocate(allocation(settled.node, settled.cpu, f"u{index}-{each}", 3, lease_seconds=70))
                for each in range(4)
            ),
            after_ms=11_000,
        )
        if index % 3 == 2:
            gone = allocation(settled.node, settled.cpu, f"u{index}-0", 3)
            settled.block(settled.release(gone.allocation_id), settled.release(b"x" * 32), b"noise")
    other = registration(settled.node, CPU, "cpu-1", 7)
    refs = settled.refs(settled.node, settled.node, settled.cpu_id)
    settled.block(settled.tx(settled.node, refs, register_asset=other))
    settled.block(after_ms=800_000)


def replay(start: dict[bytes, bytes], blocks: list[Block], directory: Path) -> list[str]:
    """App hashes of every block, from a store on disk."""
    store = Store(directory)
    first = store.prepare(0, 0, dict(start))
    store.commit(first)
    store.advance(first)
    hashes = []
    for block in blocks:
        outcome = execute(store.snapshot, block, verify_now)
        prepared = store.prepare(block.height, block.time_ms, outcome.writes)
        store.commit(prepared)
        store.advance(prepared)
        reasons = [str(result.reason) for result in outcome.results]
        hashes.append(prepared.head.app_hash.hex() + json.dumps(reasons))
    store.close()
    return hashes


SCRIPT = """
import json, sys
from pathlib import Path
sys.path.append(sys.argv[1])
from hypermesh_ledger.execution import Block
from tests.unit.ledger.test_determinism import replay
document = json.loads(Path(sys.argv[2]).read_text())
start = {bytes.fromhex(k): bytes.fromhex(v) for k, v in document["start"].items()}
blocks = [Block(h, t, bytes.fromhex(x), [bytes.fromhex(tx) for tx in txs]) for h, t, x, txs in document["blocks"]]
print(json.dumps(replay(start, blocks, Path(sys.argv[3]))))
"""


def test_two_hash_seeds_give_the_same_app_hashes(settled: Settled, tmp_path: Path) -> None:
    start = dict(settled.state.entries)
    begun = len(settled.blocks)
    history(settled, tmp_path / "plot")
    blocks = settled.blocks[begun:]
    assert any(result for block in blocks for result in block.txs)
    document = {
        "start": {key.hex(): value.hex() for key, value in start.items()},
        "blocks": [[b.height, b.time_ms, b.hash.hex(), [tx.hex() for tx in b.txs]] for b in blocks],
    }
    (tmp_path / "history.json").write_text(json.dumps(document))
    root = str(Path(__file__).resolve().parents[3])
    answers = []
    for seed in ("0", "4242"):
        arguments = [root, str(tmp_path / "history.json"), str(tmp_path / seed)]
        done = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, *arguments],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] == replay(start, blocks, tmp_path / "here")
    assert len(set(answers[0])) > 10
    store = Store(tmp_path / "here")
    on_disk = dict(store.snapshot.scan(b""))
    assert on_disk == settled.state.entries
    store.close()


def test_an_idle_block_leaves_the_app_hash(world: World, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.prepare(1, 1, dict(world.state.entries))
    store.commit(first)
    store.advance(first)
    idle = execute(store.snapshot, Block(2, world.now_ms + 1, b"h" * 32, ()), verify_now)
    assert idle.writes == {}
    assert store.prepare(2, world.now_ms + 1, idle.writes).head.app_hash == store.head.app_hash
    store.close()


def test_a_refusal_does_not_depend_on_what_else_is_in_the_block(settled: Settled) -> None:
    """Neither order nor company of unrelated transactions changes a result."""
    release = settled.release(b"y" * 32)
    good = settled.allocate(allocation(settled.node, settled.cpu, "u", 1))
    block = Block(settled.height + 1, settled.now_ms + 1, b"h" * 32, [release, b"noise", good])
    forward = execute(settled.state, block, verify_now).results
    backward = execute(
        settled.state, Block(block.height, block.time_ms, block.hash, block.txs[::-1]), verify_now
    ).results
    assert forward == backward[::-1]


def test_no_kind_of_operation_is_forgotten(settled: Settled) -> None:
    for field in ledger_pb2.Operation.DESCRIPTOR.oneofs_by_name["kind"].fields:
        refs = settled.refs(settled.node, settled.node, settled.cpu_id)
        spends = field.name not in TICKETLESS
        empty = {field.name: field.message_type._concrete_class()}
        result = settled.do(settled.tx(settled.node, refs if spends else None, **empty))
        assert result.reason is not None
        assert "not known here" not in result.message, field.name
