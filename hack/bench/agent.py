"""What the agent costs a node: memory by import step and while it runs, time of a survey, delay of hot-plug.

    PYTHONSAFEPATH=1 python hack/bench/agent.py [--repetitions 10]

Memory is resident set size, baseline a bare interpreter. The last rows of the first part are what the agent does *not*
load, and what each would add. The running agent is measured against a real API server, TrustChain and ledger (root
only), with its first Assets Ready; hot-plug (root only) is set beside the kernel's bare event.
Prints a table and writes build/bench/agent.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last: it must shadow nothing

from _rows import ROOT, Row, compared, publish, resident, single

from hypermesh_agent.hardware import Kind
from hypermesh_agent.hotplug import HotPlug
from hypermesh_agent.survey import Survey, SurveyConfig, read_gpus

TESTS = ROOT / "tests" / "integration" / "agent"
STEPS = (
    ("bare interpreter", ""),
    ("+ asyncio, ssl, json", "import asyncio, ssl, json"),
    ("+ API client (aiohttp)", "import hypermesh_clients.kube"),
    ("+ probes and metrics", "import hypermesh_clients.serving"),
    ("+ protobuf messages", "import hypermesh.v1.ledger_pb2, hypermesh.v1.resource_pb2"),
    ("+ ledger client and mirror (grpc)", "import hypermesh_clients.ledger, hypermesh_clients.mirror"),
    ("+ liboqs", "import hypermesh.falcon; hypermesh.falcon.native()"),
    ("+ the agent itself, proxy included", "import hypermesh_agent.agent"),
    (
        "+ one survey (libudev)",
        "import hypermesh_agent.survey as s; asyncio.run(s.Survey(s.SurveyConfig()).run())",
    ),
)
KEPT_OUT = (
    ("key files and enrolment (cryptography)", "import hypermesh_agent.enrolling"),
    ("NVML binding", "import pynvml"),
    ("numpy", "import numpy"),
    ("chiapos and chiavdf", "import chiapos, chiavdf"),
)
_SHOW = "print(open('/proc/self/statm').read().split()[1])"
SETTLE_S = 25.0
LIMIT_KB = 80 * 1024


def grown_to(code: str) -> int:
    """kB after the code ran in a fresh interpreter; the second of two runs, so that bytecode is compiled."""
    for _ in range(2):
        command = [sys.executable, "-P", "-W", "ignore", "-c", f"{code}\n{_SHOW}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * os.sysconf("SC_PAGESIZE") // 1024


def memory() -> Iterator[Row]:
    done, before, bare = "", 0, 0
    for name, code in STEPS:
        done += f"{code}\n"
        size = grown_to(done)
        bare = bare or size
        yield compared(f"RSS {name} ({size - before:+d})", "kB", [size], "bare", [bare])
        before = size
    for name, code in KEPT_OUT:
        yield single(f"RSS kept out: {name}", "kB", grown_to(done + code) - before)


async def surveys(repetitions: int) -> list[Row]:
    """Milliseconds of one look, all kinds but GPUs, and of asking the GPU drivers in their own process."""
    with tempfile.TemporaryDirectory() as pool:
        survey = Survey(SurveyConfig(pool=Path(pool)))
        rows = [
            await _times(f"survey of {name}", repetitions, lambda kinds=kinds: survey.run(kinds))
            for name, kinds in (
                ("CPU", {Kind.CPU}),
                ("memory", {Kind.MEMORY}),
                ("storage", {Kind.STORAGE}),
                ("CPU, memory and storage", set(Kind) - {Kind.GPU}),
            )
        ]
    return [*rows, await _times("GPU reader, a process of its own", 3, read_gpus)]


async def _times(name: str, repetitions: int, call: Callable[[], Awaitable[object]]) -> Row:
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        await call()
        times.append((time.perf_counter() - began) * 1000)
    return single(name, "ms", *times)


async def hotplug(repetitions: int) -> list[Row]:
    """Attach of a loop device -> in the inventory, beside attach -> the kernel's event."""
    import pyudev

    sys.path.append(str(TESTS))
    import loop_devices as loops

    survey, found, bare = Survey(SurveyConfig()), [], []
    with tempfile.TemporaryDirectory() as folder:
        path = loops.image(Path(folder), "bench.img", 16)
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "kernel")
        monitor.filter_by("block")
        monitor.start()
        async with HotPlug() as plug:
            events = aiter(plug)
            for _ in range(repetitions):
                began = time.perf_counter()
                with loops.attached(path):
                    monitor.poll(timeout=5)
                    bare.append((time.perf_counter() - began) * 1000)
                    async with asyncio.timeout(5):
                        while True:
                            inventory = await survey.run(await anext(events))
                            if any(item.hardware_id == f"loop:{path}" for item in inventory.of(Kind.STORAGE)):
                                break
                    found.append((time.perf_counter() - began) * 1000)
                async with asyncio.timeout(5):
                    await anext(events)
                while monitor.poll(timeout=0.2) is not None:
                    pass
    return [compared("hot-plug: attach -> in the inventory", "ms", found, "kernel's event", bare)]


async def running(settle_s: float) -> list[Row]:
    """RSS of a real agent whose Assets are Ready, after some epochs."""
    sys.path.append(str(TESTS))
    import agent_mesh as meshes

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        pool = directory / "state" / "pool"
        pool.mkdir(parents=True)
        async with meshes.running_mesh(directory, pool) as mesh, mesh.kube() as kube:
            began = time.perf_counter()
            mesh.agent.start()

            async def everything_ready() -> bool:
                assets = await mesh.assets(kube)
                states = [await meshes.condition(kube, asset["metadata"]["name"], "Ready") for asset in assets]
                return len(states) >= 3 and set(states) <= {"True"}

            await meshes.until("every Asset Ready", everything_ready, 120, every=0.1)
            first = time.perf_counter() - began
            await asyncio.sleep(settle_s)
            process = mesh.agent.pid
            return [
                compared("running agent, RSS", "kB", [resident(process)], "limit", [LIMIT_KB]),
                single("running agent, of it not files", "kB", resident(process, "RssAnon")),
                single("start -> every Asset Ready", "s", first),
            ]


def rows(repetitions: int, settle_s: float) -> Iterator[Row]:
    yield from memory()
    yield from asyncio.run(surveys(repetitions))
    if os.geteuid() != 0:
        print("hot-plug and the running agent are measured as root only")
        return
    yield from asyncio.run(hotplug(repetitions))
    sys.path.append(str(TESTS))
    import agent_mesh as meshes

    with meshes.own_network():
        yield from asyncio.run(running(settle_s))


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and delays of the agent.")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds of epochs before memory is read")
    options = parser.parse_args()
    publish("agent", rows(options.repetitions, options.settle))


if __name__ == "__main__":
    main()
