"""What the ledger says can be checked by strangers: CometBFT's own light client, and our offline verifier."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_ledger import commitment, keys

from ...builders import Member
from ...processes import free_port
from ..ledger_fixture import PROGRAM, Ledger, patient, running_ledger
from .light_client import light_client, lying_primary, query, rpc, value_of


@dataclass
class Shown:
    """A ledger that lets its RPC be used on this machine, and two nodes it knows."""

    ledger: Ledger
    rpc: str
    node: Member
    other: Member


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    port = free_port()
    options = ("--rpc", f"[::1]:{port}")
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient(), options=options) as ledger:
        node = await ledger.enrol(trust_pb2.ROLE_NODE, "node-1")
        other = await ledger.enrol(trust_pb2.ROLE_NODE, "node-2")
        await ledger.until_up(after=ledger.mirror.height + 2)  # so that a header covers both
        yield Shown(ledger, f"http://[::1]:{port}", node, other)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_stock_light_client_accepts_what_is_true(shown: Shown, tmp_path: Path) -> None:
    absent = keys.node(b"\0" * 32)
    async with light_client(tmp_path / "light", shown.ledger.chain_id, shown.rpc, shown.rpc) as url:
        found = await query(url, keys.node(shown.node.key_id))
        listing = await query(url, commitment.LISTING + commitment.bucket_of(absent))
        with pytest.raises(LookupError, match="code: 2"):
            await query(url, absent)
        old = await query(url, keys.node(shown.node.key_id), int(found["height"]) - 1)
    assert ledger_pb2.NodeRecord.FromString(value_of(found)).key_id == shown.node.key_id
    assert value_of(found) == value_of(old)
    assert absent not in value_of(listing)


async def test_the_stock_light_client_refuses_forgeries(shown: Shown, tmp_path: Path) -> None:
    wanted, wrong = keys.node(shown.node.key_id), keys.node(shown.other.key_id)
    another = await query(shown.rpc, wrong)

    def other_value(honest: dict[str, Any]) -> dict[str, Any]:
        value = bytearray(base64.b64decode(honest["value"]))
        value[-1] ^= 1
        return {**honest, "value": base64.b64encode(value).decode()}

    def other_key(honest: dict[str, Any]) -> dict[str, Any]:
        """A good proof, but of another key than the response says."""
        return {**another, "key": honest["key"]}

    def not_there(honest: dict[str, Any]) -> dict[str, Any]:
        return {**honest, "value": None}

    def older_state(honest: dict[str, Any]) -> dict[str, Any]:
        return {**honest, "height": "1"}

    for name, lie, complaint in (
        ("value", other_value, "leaf hash mismatch|leaf mismatch|verify value proof"),
        ("key", other_key, "verify value proof|key mismatch"),
        ("absence", not_there, "verify absence proof"),
        ("height", older_state, "verify value proof|root"),
    ):
        async with (
            lying_primary(shown.rpc, lie) as primary,
            light_client(tmp_path / name, shown.ledger.chain_id, primary, shown.rpc) as url,
        ):
            with pytest.raises(LookupError, match=complaint):
                await query(url, wanted)


async def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Exit status and standard output, with what went to standard error behind it."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def exported(shown: Shown, *what: str) -> dict[str, Any]:
    where = ("--ledger", shown.ledger.target, "--ca", str(shown.ledger.directory / "tls.crt"))
    status, output = await command(*PROGRAM, "prove", *what, *where)
    assert status == 0, output
    bundle: dict[str, Any] = json.loads(output)
    return bundle


async def verified(bundle: dict[str, Any], *options: str) -> tuple[int, str]:
    program = (sys.executable, "-P", "-m", "hypermesh_verify.main", "-")
    return await command(*program, *options, stdin=json.dumps(bundle).encode())


async def test_an_exported_bundle_is_verified_offline(shown: Shown) -> None:
    genesis = str(shown.ledger.home / "config" / "genesis.json")
    present = await exported(shown, "node", shown.node.key_id.hex())
    status, output = await verified(present, "--genesis", genesis)
    assert (status, "never changed since" in output) == (3, True)
    trusted = next(line.split()[1] for line in output.splitlines() if line.startswith("validators "))
    status, output = await verified(present, "--validators", trusted, "--key", keys.node(shown.node.key_id).hex())
    assert (status, output.splitlines()[-1]) == (0, "SHOWN")
    absent = await exported(shown, "asset", "00" * 32)
    status, output = await verified(absent, "--validators", trusted)
    assert status == 0
    assert "absent" in output

    status, output = await verified(present)
    assert (status, "UNVOUCHED" in output) == (3, True)
    status, output = await verified(present, "--validators", "00" * 32)
    assert (status, output.startswith("REFUSED: its validators are not those")) == (1, True)
    status, output = await verified(present, "--key", keys.node(shown.other.key_id).hex())
    assert (status, output.startswith("REFUSED: it is of key")) == (1, True)


async def test_heights_that_are_not_kept(shown: Shown) -> None:
    key, head = keys.node(shown.node.key_id), (await shown.ledger.client.status()).height
    proof = await shown.ledger.client.get_proof(key, 1)
    assert (proof.height, proof.value, json.loads(proof.signed_header)["header"]["height"]) == (1, b"", "2")
    assert key not in proof.listing
    with pytest.raises(LedgerUnavailable, match=r"OUT_OF_RANGE.*keeps 1 to"):
        await shown.ledger.client.get_proof(key, head + 1_000)
    for wrong in (b"", b"k" * 128, b"x:1", b"\0B12"):
        with pytest.raises(LedgerUnavailable, match="INVALID_ARGUMENT"):
            await shown.ledger.client.get_proof(wrong)


async def test_history_survives_a_restart(shown: Shown) -> None:
    ledger, key = shown.ledger, keys.node(shown.node.key_id)
    before = await ledger.client.get_proof(key)
    application = ledger.pids()["application"]

    os.kill(application, signal.SIGKILL)
    await ledger.until_up(after=before.height + 3)
    after = await ledger.client.get_proof(key, before.height)
    assert (after.value, list(after.steps)) == (before.value, list(before.steps))
    assert int((await rpc(shown.rpc, "status"))["sync_info"]["latest_block_height"]) > before.height
