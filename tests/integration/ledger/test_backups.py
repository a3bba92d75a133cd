"""Backups of a running ledger, taken while operations are committed; restored, nothing of before them is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger.holding import cometbft

from ...builders import Member, member
from ..ledger_fixture import PROGRAM, START_S, Ledger, patient, running_ledger
from .test_crashes import insist, sound

COMMAND_S = 120.0


async def hypermesh_ledger(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and standard error."""
    command = [*PROGRAM, *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    async with asyncio.timeout(COMMAND_S):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def backup(ledger: Ledger, file: Path) -> int:
    """The height that it has."""
    status, said = await hypermesh_ledger("backup", file, "--home", ledger.home)
    assert status == 0, said
    assert "private keys" in said
    assert (await asyncio.to_thread(file.stat)).st_mode & 0o777 == 0o600
    with tarfile.open(file) as tar:
        about = tar.extractfile("backup.json")
        assert about is not None
        found = json.loads(about.read())
    assert (found["chain_id"], found["running"]) == (ledger.chain_id, True)
    return int(found["height"])


async def enrolled(ledger: Ledger, number: int) -> tuple[Member, int]:
    """A new key, and the height at which it was committed."""
    new = member(ledger.root, trust_pb2.ROLE_OPERATOR, f"operator-{number}", cluster=number + 2)
    envelope = ledger.envelope(new, enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))
    return new, (await insist(ledger, envelope)).height


async def test_backups_under_load_restore_all_that_was_committed_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Five while operations go on; the last one is restored, and the ledger in it goes on with the same clients."""
    committed: list[tuple[Member, int]] = []

    async def load() -> None:
        for number in range(10_000):
            committed.append(await enrolled(ledger, number))

    async with running_ledger(tmp_path, patient()) as ledger:
        loading = asyncio.create_task(load())
        pids = ledger.pids()
        heights = [await backup(ledger, tmp_path / f"{number}.tar") for number in range(5)]
        while len(committed) < 20 or committed[-1][1] <= heights[-1] + 2:
            assert not loading.done(), loading.exception()
            await asyncio.sleep(0.05)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        assert ledger.pids() == pids, "a backup cost a process"
        assert heights == sorted(heights)
        assert heights[0] > 0
        newest = (await ledger.client.status()).height
        assert not list((ledger.home / "run").glob("backup-*"))
        sound(ledger)
        await ledger.stop()
        refused, said = await hypermesh_ledger("restore", tmp_path / "4.tar", "--home", ledger.home)
        assert (refused, "is not empty" in said) == (1, True)
        shutil.rmtree(ledger.home)
        status, said = await hypermesh_ledger("restore", tmp_path / "4.tar", "--home", ledger.home)
        assert status == 0, said
        assert "what was committed after the backup is lost" in said
        await ledger.start()
        before = {new.key_id for new, height in committed if height <= heights[-1]}
        # CometBFT's files may hold one block more than the state had committed; a start replays it.
        after = {new.key_id for new, height in committed if height > heights[-1] + 1}
        assert before
        assert after
        # Block heights may be taken again: whoever follows sees the shorter chain, without what is lost.
        await ledger.mirror.wait_until(lambda: not after & ledger.mirror.nodes.keys(), START_S)
        assert before <= ledger.mirror.nodes.keys()
        assert "went back from height" in caplog.text
        new, height = await enrolled(ledger, 20_000)
        assert heights[-1] < height
        await ledger.mirror.wait_until(lambda: new.key_id in ledger.mirror.nodes, START_S)
        sound(ledger)
        print(f"backups at heights {heights}, the chain was at {newest}; goes on at {height}")


async def test_a_backup_of_a_stopped_ledger_is_moved_whole(tmp_path: Path) -> None:
    async with running_ledger(tmp_path / "here", patient()) as ledger:
        new, _ = await enrolled(ledger, 1)
        await ledger.stop()
        status, said = await hypermesh_ledger("backup", tmp_path / "moved.tar", "--home", ledger.home)
        assert status == 0, said
        again, said = await hypermesh_ledger("backup", tmp_path / "moved.tar", "--home", ledger.home)
        assert (again, "never overwritten" in said) == (1, True)
        signed = (ledger.home / "data" / "priv_validator_state.json").read_bytes()
        key = (ledger.home / "config" / "priv_validator_key.json").read_bytes()
        shutil.rmtree(ledger.home)
        status, said = await hypermesh_ledger("restore", tmp_path / "moved.tar", "--home", ledger.home)
        assert status == 0, said
        assert (ledger.home / "data" / "priv_validator_state.json").read_bytes() == signed
        assert (ledger.home / "config" / "priv_validator_key.json").read_bytes() == key
        await ledger.start()
        await ledger.mirror.wait_until(lambda: new.key_id in ledger.mirror.nodes, START_S)
        sound(ledger)


async def test_half_a_backup_is_none_and_half_a_restore_runs_nothing(tmp_path: Path) -> None:
    async with running_ledger(tmp_path, patient()) as ledger:
        await enrolled(ledger, 1)
        await backup(ledger, tmp_path / "good.tar")
        await ledger.stop()
        good, elsewhere = (tmp_path / "good.tar").read_bytes(), tmp_path / "elsewhere"
        half = tmp_path / "half.tar"
        for content in (good[: len(good) // 2], good[:5_000], b"", good.replace(b'"chain_id"', b'"chain_iD"', 1)):
            half.write_bytes(content)
            status, said = await hypermesh_ledger("restore", half, "--home", elsewhere)
            assert (status, "is refused" in said) == (1, True), said
            assert "Traceback" not in said
        command = [str(elsewhere) if each == str(ledger.home) else each for each in ledger.command]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert (done.returncode, "did not end" in done.stderr) == (78, True), done.stderr
        status, said = await hypermesh_ledger("restore", tmp_path / "good.tar", "--home", elsewhere)
        assert status == 0, said


async def test_a_backup_killed_while_it_holds_cometbft_does_not_end_the_chain(tmp_path: Path) -> None:
    """The worst moment: the supervisor sees no block for half a minute, and starts both processes again."""
    async with running_ledger(tmp_path, patient()) as ledger:
        height = (await ledger.client.status()).height
        holding = "import sys, time, pathlib; from hypermesh_ledger.holding import held\n"
        holding += "with held(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(600)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", holding, str(ledger.home.resolve()), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            assert await process.stdout.readline() == b"held\n"
        process.kill()
        await process.wait()
        await ledger.until_up(after=height + 2, limit_s=COMMAND_S)
        await backup(ledger, tmp_path / "after.tar")
        sound(ledger)


async def test_where_there_is_no_ledger_nothing_is_written(tmp_path: Path) -> None:
    status, said = await hypermesh_ledger("backup", tmp_path / "x.tar", "--home", tmp_path)
    assert (status, "holds no ledger" in said) == (1, True)
    assert cometbft(tmp_path) is None
    with contextlib.suppress(OSError):
        assert sorted(os.listdir(tmp_path)) == []  # noqa: PTH208
