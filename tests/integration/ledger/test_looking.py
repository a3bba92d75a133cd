"""`kubectl hypermesh ledger …` against a real ledger: what it prints is compared with what was done to that ledger."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys

from ..ledger_fixture import Settled, patient, running_ledger, settle

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Looked:
    """A ledger that committed an Allocate and refused another in a block."""

    settled: Settled
    committed: bytes
    height: int

    async def plugin(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of the real command."""
        ledger = self.settled.ledger
        where = ("--ledger", ledger.target, "--ca", str(ledger.directory / "tls.crt"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "kubectl_hypermesh.main", "ledger", *words, *where),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    async def shown(self, *words: str) -> Any:
        """Its JSON."""
        status, output, errors = await self.plugin(*words, "-o", "json")
        assert status == 0, errors
        return json.loads(output)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def looked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Looked]:
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient()) as ledger:
        settled = await settle(ledger, 100)
        committed = settled.allocate("looked-at", 60)
        done = await ledger.client.submit(committed, timeout=60)
        await ledger.until_up(after=done.height + 2)
        yield Looked(settled, operations.tx_hash(committed), done.height)


async def test_status_is_that_of_the_running_chain(looked: Looked) -> None:
    before = await looked.settled.ledger.client.status()
    shown = await looked.shown("status")
    assert shown["chainID"] == before.chain_id
    assert before.height <= shown["height"]
    assert shown["ready"] is True, shown["notReady"]
    assert shown["validators"] == {"present": 1, "total": 1}
    assert shown["consensus"]["height"] >= before.height
    assert shown["history"]["from"] <= looked.height
    status, output, _ = await looked.plugin("status")
    assert status == 0
    assert "\x1b" not in output  # no terminal, no colour
    assert "1 of 1 signed" in output


async def test_a_lone_validator_is_shown_though_it_has_no_seat(looked: Looked) -> None:
    (only,) = await looked.shown("validators")
    assert (only["state"], only["power"], only["evidence"]) == ("Active", 10, None)
    assert 0 < only["signedBlocks"] <= only["countedBlocks"] <= 100
    key = json.loads((looked.settled.ledger.home / "config" / "priv_validator_key.json").read_text())
    assert only["address"] == key["address"].lower()


async def test_a_committed_transaction_is_found_by_its_hash(looked: Looked) -> None:
    shown = await looked.shown("tx", looked.committed.hex())
    assert (shown["result"], shown["height"], shown["kind"]) == ("Committed", looked.height, "allocate")
    assert shown["signature"] == "verified"
    assert shown["operation"]["amount"] == 60
    assert shown["operation"]["assetId"] == looked.settled.cpu.asset_id.hex()
    assert shown["signer"]["subject"] == "hypermesh-operator"
    assert set(shown["tickets"]) == {"space", "stake", "work", "time"}
    in_block = await looked.shown("tx", "--height", str(looked.height))
    assert looked.committed.hex() in {each["hash"] for each in in_block}
    status, output, _ = await looked.plugin("tx", looked.committed.hex())
    assert status == 0
    assert "Committed" in output
    assert "verified" in output


async def test_what_a_block_refused_is_shown_with_its_reason(looked: Looked) -> None:
    """Two that fit alone and not together are both admitted; the block refuses the second."""
    settled = looked.settled
    client = settled.ledger.client
    for attempt in range(20):
        asked = [settled.allocate(f"both-{attempt}-{number}", 30) for number in range(2)]
        results = await asyncio.gather(*(client.submit(each, timeout=60) for each in asked), return_exceptions=True)
        refused = [tx for tx, result in zip(asked, results, strict=True) if isinstance(result, Refused)]
        assert len(refused) == 1, results
        for tx, result in zip(asked, results, strict=True):
            if not isinstance(result, BaseException):
                record = operations.decode(tx).operation.allocate.allocation_id
                await settled.ledger.submit(
                    settled.operator, settled.refs(), release=ledger_pb2.Release(allocation_id=record)
                )
        status, output, errors = await looked.plugin("tx", operations.tx_hash(refused[0]).hex(), "-o", "json")
        if status == 0:
            shown = json.loads(output)
            assert (shown["result"], shown["reason"]) == ("Refused", Reason.InsufficientCapacity.value)
            assert shown["remedy"] == Reason.InsufficientCapacity.remedy
            return
        assert "no block of" in errors  # refused at the door: it was in no block; again
    pytest.fail("20 pairs were never in one pool together")


async def test_an_unknown_hash_says_which_blocks_were_looked_at(looked: Looked) -> None:
    status, output, errors = await looked.plugin("tx", "00" * 32)
    assert (status, output) == (1, "")
    assert "error: no block of 1 to " in errors
    status, _, errors = await looked.plugin("tx", "--height", "99999999")
    assert status == 1
    assert "the newest block is" in errors


async def test_proofs_are_the_nodes_newest_tickets(looked: Looked) -> None:
    settled = looked.settled
    shown = await looked.shown("proofs", "node-1")
    assert shown["keyID"] == settled.node.key_id.hex()
    assert [each["proof"] for each in shown["tickets"]] == ["space", "work", "time", "stake"]
    assert all(each["fresh"] for each in shown["tickets"])
    held = settled.ledger.mirror.ticket_refs(settled.node.key_id, settled.cpu.work_device, settled.operator.key_id)
    assert {each["hash"] for each in shown["tickets"] if "hash" in each} == {
        held.space.hex(),
        held.work.hex(),
        held.time.hex(),
    }
    assert (shown["missing"], shown["seed"]) == ([], None)
    by_asset = await looked.shown("proofs", settled.cpu.asset_id.hex())
    assert [each.get("hash") for each in by_asset["tickets"]] == [each.get("hash") for each in shown["tickets"]]
    status, _, errors = await looked.plugin("proofs", "nobody")
    assert status == 1
    assert "no node nobody is enrolled" in errors


async def test_an_exported_bundle_is_checked_at_once_and_by_anybody(looked: Looked, tmp_path: Path) -> None:
    settled, file = looked.settled, tmp_path / "bundle.json"
    genesis = str(settled.ledger.home / "config" / "genesis.json")
    status, output, told = await looked.plugin("export", "node", "node-1", "-f", str(file), "--genesis", genesis)
    assert (status, output) == (3, ""), told  # consistent; a genesis alone never vouches
    assert "UNVOUCHED" in told
    trusted = next(line.split()[1] for line in told.splitlines() if line.startswith("validators"))
    status, _, told = await looked.plugin("export", "asset", settled.cpu.asset_id.hex(), "--validators", trusted)
    assert status == 0, told
    assert "SHOWN" in told
    status, _, told = await looked.plugin("export", "asset", "ab" * 32, "--validators", "00" * 32)
    assert status == 1
    assert "holds nothing under this key" in told
    assert "REFUSED" in told
    bundle = json.loads(file.read_text())
    assert bytes.fromhex(bundle["key"]) == keys.node(settled.node.key_id)


def _metrics(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_dashboard_and_alerts_ask_for_what_the_process_exposes(looked: Looked) -> None:
    chart = Path(__file__).parents[3] / "charts" / "hypermesh" / "files"
    files = [*(chart / "dashboards").glob("*.json"), *(chart / "rules").glob("*.yaml")]
    wanted = {
        name for file in files for name in re.findall(r"\b(?:hypermesh_ledger|process)_[a-z_]+", file.read_text())
    }
    found = await asyncio.to_thread(_metrics, looked.settled.ledger.metrics_port)
    assert len(wanted) > 20
    assert wanted <= {name for name, _ in found}


async def test_the_metrics_are_what_happened(looked: Looked) -> None:
    ledger = looked.settled.ledger
    height = (await ledger.client.status()).height
    forged = bytearray(looked.settled.allocate("forged", 1))
    envelope = ledger_pb2.Envelope.FromString(bytes(forged))
    envelope.tickets.space = b"\x01" * 32
    tx = operations.build(
        operations.decode(bytes(forged)).operation,
        looked.settled.operator.keypair.public,
        looked.settled.operator.keypair.secret,
        envelope.tickets,
    )
    with pytest.raises(Refused) as refused:
        await ledger.client.submit(tx, timeout=60)
    assert refused.value.reason is Reason.SpaceTicketMissing
    found = await asyncio.to_thread(_metrics, ledger.metrics_port)
    assert found["hypermesh_ledger_height", ()] >= height
    assert found["hypermesh_ledger_validators", ()] == found["hypermesh_ledger_validators_present", ()] == 1
    assert found["hypermesh_ledger_proof_failures_total", (("proof", "space"), ("where", "ingress"))] == 1
    assert found["hypermesh_ledger_proof_failures_total", (("proof", "work"), ("where", "block"))] == 0
    assert found["hypermesh_ledger_block_interval_seconds_count", ()] > 0
    assert found["hypermesh_ledger_consensus_height", ()] > 0
    assert found["hypermesh_ledger_verifier_queue", ()] == 0
    assert found["hypermesh_ledger_extra_rounds_total", ()] >= 0
    disk = os.statvfs(ledger.home)
    assert found["hypermesh_ledger_volume_bytes", ()] == disk.f_frsize * disk.f_blocks
    assert 0 < found["hypermesh_ledger_volume_free_bytes", ()] < found["hypermesh_ledger_volume_bytes", ()]
