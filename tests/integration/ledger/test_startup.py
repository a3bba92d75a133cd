"""What a person sees when the ledger can't run: one sentence with the remedy, and an exit status that says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import proofs_pb2
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_ledger.supervisor import EX_CONFIG

from ...builders import TrustRoot
from ...processes import free_port
from ..ledger_fixture import PROGRAM, Ledger, command_for, patient, running_ledger, write_files
from .test_crashes import insist, runs, settle_cheaply, sound


def start(directory: Path, *more: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run it on the files of `directory`; it must end by itself."""
    command = command_for(PROGRAM, directory, port or free_port(), free_port())
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == EX_CONFIG, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_files(tmp_path, TrustRoot(), DEMO)
    return tmp_path


def test_flags_that_contradict_each_other(files: Path) -> None:
    command = [*PROGRAM, "run", "--home", str(files), "--root-public-key", str(files / "root.pub")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "belong together" in done.stderr) == (2, True)


def test_help_needs_nothing() -> None:
    done = subprocess.run([*PROGRAM, "run", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "--proof-parameters" in done.stdout) == (0, True)


def test_no_cometbft(files: Path) -> None:
    refused(start(files, "--cometbft", "/nonexistent/cometbft"), "/nonexistent/cometbft", "--cometbft")


def test_a_home_that_is_no_directory(files: Path) -> None:
    (files / "home").write_text("")
    refused(start(files), str(files / "home"), "--home")


def test_wrong_root_key(files: Path) -> None:
    (files / "root.pub").write_bytes(b"short")
    refused(start(files), "root public key", "1793")


def test_missing_files(files: Path) -> None:
    (files / "tls.key").unlink()
    refused(start(files), "tls.key", "--tls-key")
    (files / "root.pub").unlink()
    refused(start(files), "root.pub")


def test_certificate_and_key_are_no_pair(files: Path) -> None:
    (files / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
    refused(start(files), "no pair")


def test_wrong_proof_parameters(files: Path) -> None:
    (files / "parameters.json").write_text("{}")
    refused(start(files), "proof parameter")
    (files / "parameters.json").write_text('{"nothing": 1}')
    refused(start(files), "--proof-parameters", "production")


def test_the_port_is_taken(files: Path) -> None:
    with socket.socket(socket.AF_INET6) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        refused(start(files, port=int(holder.getsockname()[1])), "Can't listen")


async def test_a_home_of_another_chain(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, patient()) as ledger:
        first = ledger.home
        refused(await asyncio.to_thread(start, tmp_path), "Another ledger runs")
    (tmp_path / "other").mkdir()
    write_files(tmp_path / "other", TrustRoot(), patient())
    first.rename(tmp_path / "other" / "home")
    refused(start(tmp_path / "other"), "holds chain", "restore the TrustChain root")
    (tmp_path / "other" / "home").rename(first)
    changed = proofs_pb2.ProofParameters()
    changed.CopyFrom(patient())
    changed.grace_epochs += 1
    (tmp_path / "parameters.json").write_text(json.dumps({"epochMs": "60000"} | _as_json(changed)))
    refused(start(tmp_path), "other proof parameters", "fixed at genesis")
    (first / "config" / "genesis.json").write_text("{")
    refused(start(tmp_path), "damaged", "Restore a backup")
    (first / "data" / "priv_validator_state.json").unlink()
    refused(start(tmp_path), "priv_validator_state.json is missing")


def _as_json(params: proofs_pb2.ProofParameters) -> dict[str, object]:
    from google.protobuf import json_format

    document: dict[str, object] = json_format.MessageToDict(params)
    return document


async def test_a_restart_keeps_everything_and_stops_cleanly(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, patient()) as ledger:
        envelope = await settle_cheaply(ledger)
        commit = await insist(ledger, envelope)
        pids = list(ledger.pids().values())
        assert await ledger.stop() == 0
        assert not [pid for pid in pids if runs(pid)]
        await ledger.start()
        assert (await insist(ledger, envelope)).height == commit.height
        sound(ledger)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A volume of 96 MB."""
    if os.geteuid() != 0:
        pytest.fail("needs root to mount a small volume; run as root or deselect with -m 'not root'")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "ledger-test", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.root
async def test_a_full_volume_is_named_and_survived(small: Path) -> None:
    async with running_ledger(small, patient()) as ledger:
        commit = await insist(ledger, await settle_cheaply(ledger))
        filler = _fill(small)
        await _until_logged(ledger, "free space on it or enlarge it")
        with pytest.raises(LedgerUnavailable):
            await ledger.client.submit(await settle_cheaply(ledger), timeout=2)
        filler.unlink()
        status = await ledger.until_up(after=commit.height, limit_s=90)
        again = await insist(ledger, await settle_cheaply(ledger))
        assert again.height > status.height
        sound(ledger)


def _fill(volume: Path) -> Path:
    """A file that takes all the space that is left."""
    filler = volume / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    return filler


async def _until_logged(ledger: Ledger, words: str) -> None:
    for _ in range(1_200):
        if words in ledger.log():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never logged {words!r}:\n{ledger.log()[-3000:]}")


def test_logs_are_json_lines_without_secrets(files: Path) -> None:
    done = start(files, "--chain-id", "x" * 51)
    refused(done, "1 to 50 characters")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["process"] for line in lines} == {"ledger", "ledger-supervisor"}
    assert all(line["message"] and line["time"] and line["level"] for line in lines)
    assert sys.executable not in done.stderr
