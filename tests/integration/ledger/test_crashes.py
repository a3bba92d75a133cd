"""kill -9 of any process at any moment, and crashes at every step of a block: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import Commit, LedgerUnavailable
from hypermesh_clients.mirror import HALTED_S

from ...builders import TrustRoot
from ..ledger_fixture import Ledger, Settled, patient, resumed, running_ledger, settle

RECOVERY_S = 60.0
POINTS = [
    "info",
    "prepare_proposal",
    "process_proposal",
    "finalize_block",
    "finalize_block_unanswered",
    "commit",
    "in_transaction",
    "written",
    "decided",
    "commit_unanswered",
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Settled:
    """A settled ledger, stopped: plots and proofs are made once, and each test that crashes one begins with a copy."""

    async def settled() -> Settled:
        async with running_ledger(tmp_path_factory.mktemp("before"), patient()) as ledger:
            return await settle(ledger, 100)

    return asyncio.run(settled())


async def insist(ledger: Ledger, envelope: bytes) -> Commit:
    """Submit the same bytes until the ledger says yes or no; what every client does."""
    async with asyncio.timeout(180):
        while True:
            try:
                return await ledger.client.submit(envelope, timeout=5)
            except LedgerUnavailable:
                await asyncio.sleep(0.1)


async def until(predicate: Callable[[], bool]) -> None:
    """Looks every 50 ms, for RECOVERY_S at most."""
    for _ in range(int(RECOVERY_S / 0.05)):
        if predicate():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


def sound(ledger: Ledger) -> None:
    """No process ever complained about the state (that CometBFT panics when the application leaves it is known).

    A write-ahead log whose last entry a full disk or a kill tore off is no such complaint: CometBFT repairs it.
    """
    torn = ("/cs.wal/", "height of consensus wal", "the wal file is corrupted; attempting repair")
    lines = [line for line in ledger.log().lower().splitlines() if not any(mark in line for mark in torn)]
    log = "\n".join(lines)
    for word in ("apphash", "app hash", "traceback", "damaged", "corrupt", "conflicting"):
        assert word not in log, log[-6000:]


async def check_books(settled: Settled, envelopes: list[bytes], commits: list[Commit]) -> None:
    """Every commit that was reported is in the state at its height, and the reserved sum is that of the state."""
    ledger = settled.ledger
    status = await ledger.client.status()
    await ledger.mirror.wait_until(lambda: ledger.mirror.height >= status.height, RECOVERY_S)
    active = [each for each in ledger.mirror.allocations.values() if each.state == ledger_pb2.ALLOCATION_STATE_ACTIVE]
    assert settled.reserved == len(active) == len(envelopes)
    by_hash = {each.tx_hash: each.height for each in active}
    for commit in commits:
        assert commit.height in by_hash.values()
    assert {each.envelope for each in active} == set(envelopes)


async def test_killed_at_random_under_load(stopped: Settled, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with resumed(stopped, tmp_path, patient()) as settled:
        ledger = settled.ledger
        envelopes = [settled.allocate(f"u{index}") for index in range(100)]
        async with asyncio.TaskGroup() as group:
            load = []
            for first in range(0, 100, 10):
                load += [group.create_task(insist(ledger, each)) for each in envelopes[first : first + 10]]
                await asyncio.sleep(chance.uniform(0, 0.3))
                before = (await ledger.until_up(limit_s=RECOVERY_S)).height
                os.kill(chance.choice(sorted(ledger.pids().values())), signal.SIGKILL)
                await ledger.until_up(after=before, limit_s=RECOVERY_S)
        commits = [task.result() for task in load]
        await check_books(settled, envelopes, commits)
        sound(ledger)


async def test_supervisor_killed(stopped: Settled, tmp_path: Path) -> None:
    """Its children die with it, and the next supervisor goes on from their files."""
    async with resumed(stopped, tmp_path, patient()) as settled:
        ledger = settled.ledger
        envelope = settled.allocate("u")
        await insist(ledger, envelope)
        height, children = (await ledger.client.status()).height, list(ledger.pids().values())
        assert ledger.process is not None
        ledger.process.kill()
        await ledger.process.wait()
        await until(lambda: not any(runs(pid) for pid in children))
        await ledger.start()
        await ledger.until_up(after=height, limit_s=RECOVERY_S)
        await check_books(settled, [envelope], [])
        sound(ledger)


@pytest.mark.parametrize("point", POINTS)
async def test_crash_at_a_step_of_a_block(stopped: Settled, tmp_path: Path, point: str) -> None:
    marker = tmp_path / "armed"
    async with resumed(stopped, tmp_path, patient(), crashing(point, marker)) as settled:
        ledger = settled.ledger
        envelope = settled.allocate("u")
        marker.touch()
        first = (await ledger.client.status()).height
        if point == "info":  # called only when CometBFT starts
            os.kill(ledger.pids()["cometbft"], signal.SIGKILL)
        commit = await insist(ledger, envelope)
        await until(lambda: not marker.exists())
        await ledger.until_up(after=max(first, commit.height) + 1, limit_s=RECOVERY_S)
        again = await insist(ledger, envelope)
        assert again.height == commit.height
        await check_books(settled, [envelope], [commit, again])
        assert "SIGKILL" in ledger.log()
        sound(ledger)


@pytest.mark.parametrize("point", ["init_chain", "init_chain_unanswered"])
async def test_crash_before_the_first_block(tmp_path: Path, point: str) -> None:
    marker = tmp_path / "armed"
    marker.touch()
    async with running_ledger(tmp_path, patient(), program=crashing(point, marker)) as ledger:
        assert not marker.exists()
        assert (await insist(ledger, await settle_cheaply(ledger))).height > 0
        sound(ledger)


def crashing(point: str, marker: Path) -> list[str]:
    """The ledger's program, but the application crashes once at a point, when the marker is there."""
    return [sys.executable, "-P", str(Path(__file__).with_name("crashing_ledger.py")), point, str(marker)]


async def settle_cheaply(ledger: Ledger) -> bytes:
    """An enrolment to submit: every kind of operation goes the same way through a block."""
    from hypermesh.v1 import trust_pb2

    from ...builders import member

    new = member(ledger.root, trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
    return ledger.envelope(new, enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))


def runs(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_refusals_survive_a_restart(tmp_path: Path) -> None:
    """What was refused before a crash is refused after it, for the same reason."""
    async with running_ledger(tmp_path, patient(), TrustRoot()) as ledger:
        envelope = await settle_cheaply(ledger)
        first = await insist(ledger, envelope)
        os.kill(ledger.pids()["application"], signal.SIGKILL)
        assert (await insist(ledger, envelope)).height == first.height
        other = ledger_pb2.Envelope.FromString(envelope)
        other.signature = bytes([other.signature[0], other.signature[1] ^ 1]) + other.signature[2:]
        with pytest.raises(Refused, match="BadSignature"):
            await ledger.client.submit(other.SerializeToString(deterministic=True), timeout=30)


async def test_a_halted_chain_is_seen_though_it_answers(tmp_path: Path) -> None:
    """CometBFT stands still; the application goes on answering and sending markers, so only the height tells."""
    async with running_ledger(tmp_path, patient()) as ledger:
        mirror = ledger.mirror
        await until(lambda: mirror.problem() is None)
        cometbft = ledger.pids()["cometbft"]
        os.kill(cometbft, signal.SIGSTOP)
        try:
            await until(lambda: mirror.problem() is not None)
            assert mirror.age() < 3
            assert mirror.stalled_for() >= HALTED_S
            assert "no block for" in str(mirror.problem())
        finally:
            os.kill(cometbft, signal.SIGCONT)
        await until(lambda: mirror.problem() is None)


async def readiness(ledger: Ledger) -> tuple[int, str]:
    """What kubelet sees: status and text of /readyz; 0 when nobody answers."""
    limit = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(f"http://[::1]:{ledger.metrics_port}/readyz") as answer,
        ):
            return answer.status, await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return 0, str(error)


async def until_readiness(ledger: Ledger, wanted: int) -> str:
    """The text of /readyz once it answers `wanted`, within RECOVERY_S."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            status, text = await readiness(ledger)
            if status == wanted:
                return text
            await asyncio.sleep(0.1)


async def test_a_stopped_cometbft_is_unready_and_then_replaced(tmp_path: Path) -> None:
    """It never goes on: the application's readiness tells, and the supervisor starts both again."""
    async with running_ledger(tmp_path, patient()) as ledger:
        assert "[+] chain" in await until_readiness(ledger, 200)
        height, before = (await ledger.client.status()).height, ledger.pids()
        os.kill(before["cometbft"], signal.SIGSTOP)
        try:
            assert "no block for" in await until_readiness(ledger, 503)
            await until(lambda: not runs(before["cometbft"]))
            assert "[+] chain" in await until_readiness(ledger, 200)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(before["cometbft"], signal.SIGCONT)
        assert not set(before.values()) & set(ledger.pids().values())
        await ledger.until_up(after=height)
        assert "no block after height" in ledger.log()
        sound(ledger)
