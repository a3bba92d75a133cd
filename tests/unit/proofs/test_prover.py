"""The Prover with real workers: an epoch from commitment to verified proofs, failures, limits, leanness."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypermesh.proofs import challenge, verify_space, verify_time, verify_work
from hypermesh.v1.ledger_pb2 import Prove, WorkSeed
from hypermesh.v1.proofs_pb2 import ProofParameters, WorkCommitment
from hypermesh_agent.proofs import OpenclDevice, Prover, ProverFailed, WorkDevice
from hypermesh_agent.proofs.plots import plot_path

CPU, OTHER = b"\x0c" * 32, b"\x0d" * 32
K = 18


@pytest.fixture
def prover(plot_dir: Path, node: bytes) -> Prover:
    return Prover(plot_dir, node)


def check(prove: Prove, node: bytes, c: bytes, seed: WorkSeed, params: ProofParameters) -> None:
    verify_space(node, c, prove.space, params)
    verify_time(c, prove.time, params)
    assert [proof.device for proof in prove.work] == [commitment.device for commitment in seed.commitments]
    for commitment, proof in zip(seed.commitments, prove.work, strict=True):
        verify_work(c, commitment.device, seed.seed, commitment.root, proof, params)


async def test_an_epoch(prover: Prover, node: bytes, small: ProofParameters) -> None:
    c = challenge("test-chain", b"beacon", node, 3)
    devices = [WorkDevice(CPU), WorkDevice(OTHER, cpus=(min(os.sched_getaffinity(0)),))]
    assert not await prover.ensure_plot(K)
    commitments = await prover.commit_work(c, devices, small)
    assert [commitment.device for commitment in commitments] == [CPU, OTHER]
    seed = WorkSeed(node=node, epoch=3, seed=b"s" * 32, commitments=commitments)
    prove = await prover.prove(c, 3, seed, small, devices)
    assert prove.epoch == 3
    check(prove, node, c, seed, small)


async def test_a_restarted_agent_opens_what_it_committed_before(
    plot_dir: Path, node: bytes, asked: bytes, small: ProofParameters
) -> None:
    commitments = await Prover(plot_dir, node).commit_work(asked, [WorkDevice(CPU)], small)
    seed = WorkSeed(node=node, epoch=7, seed=b"t" * 32, commitments=commitments)
    check(await Prover(plot_dir, node).prove(asked, 7, seed, small), node, asked, seed, small)


async def test_opencl_and_numpy_commit_the_same_root(prover: Prover, asked: bytes, small: ProofParameters) -> None:
    found: list[OpenclDevice] = await prover.opencl_devices()
    if not found:
        pytest.skip("no OpenCL device: install the opencl extra (pocl) or a GPU driver to run this")
    assert all(device.model and device.memory > 0 for device in found)
    plain = await prover.commit_work(asked, [WorkDevice(CPU)], small)
    for device in found:
        assert await prover.commit_work(asked, [WorkDevice(CPU, opencl=device.name)], small) == plain


async def test_a_missing_gpu_is_told(prover: Prover, asked: bytes, small: ProofParameters) -> None:
    with pytest.raises(ProverFailed, match="isn't here") as caught:
        await prover.commit_work(asked, [WorkDevice(CPU, opencl="pci:ffff:00:00.0")], small)
    assert caught.value.kind == "DeviceMissing"


async def test_a_commitment_that_is_not_ours_is_not_opened(
    prover: Prover, node: bytes, asked: bytes, small: ProofParameters
) -> None:
    """The worker checks its own proof, so a wrong one never reaches the ledger."""
    seed = WorkSeed(node=node, epoch=7, seed=b"s", commitments=[WorkCommitment(device=CPU, root=bytes(32))])
    with pytest.raises(ProverFailed, match="committed root") as caught:
        await prover.prove(asked, 7, seed, small)
    assert caught.value.kind == "ProofRefused"


async def test_plotting_reports_progress(tmp_path: Path, node: bytes) -> None:
    seen: list[float] = []
    assert await Prover(tmp_path / "new" / "pool", node).ensure_plot(K, seen.append)
    assert len(seen) > 5
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 0.2
    assert 0.9 < seen[-1] <= 1


async def test_a_missing_plot_is_told_and_made(
    tmp_path: Path, node: bytes, asked: bytes, small: ProofParameters
) -> None:
    prover = Prover(tmp_path, node)
    with pytest.raises(ProverFailed, match="can't be opened") as caught:
        await prover.prove_space(asked, small)
    assert caught.value.kind == "PlotUnusable"
    assert await prover.ensure_plot(K)
    verify_space(node, asked, await prover.prove_space(asked, small), small)


async def test_two_agents_do_not_spoil_each_others_plot(tmp_path: Path, node: bytes) -> None:
    made = await asyncio.gather(*(Prover(tmp_path, node).ensure_plot(K) for _ in range(2)))
    assert sorted(made) == [False, True]


def workers() -> set[int]:
    """Pids of worker processes that this process started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, status = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(status.rsplit(")", 1)[1].split()[1])
            if b"hypermesh_agent.proofs.worker" in command and parent == os.getpid():
                found.add(int(entry.name))
    return found


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for a condition, 30 seconds at most."""
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within 30 seconds")


async def until_started() -> set[int]:
    await eventually(workers)
    return workers()


@pytest.fixture
def endless(small: ProofParameters) -> ProofParameters:
    params = ProofParameters()
    params.CopyFrom(small)
    params.vdf_iterations = 10_000_000_000
    return params


async def test_a_task_is_bounded_in_time(plot_dir: Path, node: bytes, asked: bytes, endless: ProofParameters) -> None:
    prover = Prover(plot_dir, node, task_seconds=2)
    with pytest.raises(ProverFailed, match="no answer in 2 s") as caught:
        await prover.prove_time(asked, endless)
    assert caught.value.kind == "TimedOut"
    assert not workers()


async def test_a_cancelled_task_leaves_no_worker(prover: Prover, asked: bytes, endless: ProofParameters) -> None:
    task = asyncio.create_task(prover.prove_time(asked, endless))
    await until_started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not workers()


async def test_one_failure_ends_the_other_tasks(
    tmp_path: Path, node: bytes, asked: bytes, endless: ProofParameters
) -> None:
    """No plot here: space fails while the endless delay function still runs."""
    seed = WorkSeed(node=node, epoch=7, seed=b"s")
    with pytest.raises(ProverFailed, match="proof of space"):
        await Prover(tmp_path, node).prove(asked, 7, seed, endless)
    assert not workers()


async def test_a_killed_worker_is_told(prover: Prover, asked: bytes, endless: ProofParameters) -> None:
    task = asyncio.create_task(prover.prove_time(asked, endless))
    for pid in await until_started():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProverFailed, match="status -9") as caught:
        await task
    assert caught.value.kind == "Crashed"


async def test_workers_are_bounded_in_number(
    plot_dir: Path, node: bytes, asked: bytes, endless: ProofParameters
) -> None:
    prover = Prover(plot_dir, node, parallel=1)
    tasks = [asyncio.create_task(prover.prove_time(asked, endless)) for _ in range(3)]
    await until_started()
    for _ in range(20):
        await asyncio.sleep(0.02)
        assert len(workers()) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not workers()


def process_folders(children: Path) -> list[Path]:
    return [Path("/proc") / pid for pid in children.read_text().split()]


async def test_workers_die_with_a_killed_agent(plot_dir: Path, node: bytes, tmp_path: Path) -> None:
    """kill -9 of the agent must not leave a plotter or a delay function behind."""
    code = (
        "import asyncio, pathlib, sys\n"
        "from hypermesh.v1.proofs_pb2 import ProofParameters\n"
        "from hypermesh_agent.proofs import Prover\n"
        "p = ProofParameters(vdf_iterations=10**10, vdf_discriminant_bits=1024)\n"
        "asyncio.run(Prover(pathlib.Path(sys.argv[1]), bytes(32)).prove_time(bytes(32), p))\n"
    )
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path))
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    await eventually(lambda: children.read_text().split())
    (worker,) = process_folders(children)
    # It asks for its death signal first thing; chiavdf is mapped only after that.
    await eventually(lambda: b"chiavdf" in (worker / "maps").read_bytes())
    agent.kill()
    await agent.wait()
    await eventually(lambda: not worker.exists())


async def test_a_plot_that_kills_chiapos_is_made_again(
    plot_dir: Path, tmp_path: Path, node: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash itself is made by killing the checking worker; no damage we know crashes this chiapos."""
    shutil.copy(plot_path(plot_dir, node, K), tmp_path)
    prover = Prover(tmp_path, node)
    task = asyncio.create_task(prover.ensure_plot(K))
    for pid in await until_started():
        os.kill(pid, signal.SIGKILL)
    assert await task


def test_the_agents_process_stays_lean() -> None:
    code = (
        "import sys, hypermesh_agent.proofs, hypermesh.proofs, hypermesh.proofs.parameters\n"
        "print(sorted({'numpy', 'chiapos', 'chiavdf', 'pyopencl', 'oqs'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "[]"
