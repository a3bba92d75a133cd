"""The Allocations controller beside an empty kopf operator: throughput and memory, in the same run, on one API server.

    python hack/bench/controller.py [--objects 1000] [--repetitions 3]

Each repetition applies the objects at once, twice: to the empty operator (until its annotation is on all of them) and
to ours (until all are Ready: policy, signature, commit by a real ledger, Secret, ProxyMapping, the node's report, two
status writes). Prints a table and writes build/bench/controller.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(Path(__file__).parent)]  # last: they must shadow nothing

from _rows import Row, compared, percentile, publish, resident  # noqa: E402
from tests.integration.operator_fixture import Mesh, running_mesh  # noqa: E402

from hypermesh.conditions import is_true  # noqa: E402
from hypermesh.v1 import ledger_pb2  # noqa: E402
from hypermesh_clients.kube import Kube, Object, WatchType  # noqa: E402
from hypermesh_clients.kube_resources import ALLOCATIONS, NAMESPACES, PROXY_MAPPINGS  # noqa: E402

T = TypeVar("T")

EMPTY = Path(__file__).with_name("_empty_operator.py")
LIMIT_S = 600.0
ANNOTATION = "kopf.zalando.org/last-handled-configuration"


@dataclass
class Figures:
    """Of one operator in one repetition."""

    per_second: float
    start_mib: float
    full_mib: float
    cpu_ms: float
    latency: list[float]


def cpu_s(pid: int) -> float:
    """Processor time a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(kube: Kube, namespace: str, count: int, done: Callable[[Object], bool]) -> tuple[float, list[float]]:
    """Applies so many at once; objects a second until the last is done, and seconds from apply to done of each."""
    await kube.apply(NAMESPACES, {"metadata": {"name": namespace}}, field_manager="bench")
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    async def follow() -> None:
        async for event in kube.watch(ALLOCATIONS, namespace):
            if event.type in (WatchType.ADDED, WatchType.MODIFIED) and done(event.object):
                ended.setdefault(event.object["metadata"]["name"], time.monotonic())
                if len(ended) == count:
                    return

    async def create(number: int) -> None:
        name = f"a{number:04d}"
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "memory", "resources": {"memory": "1Mi"}},
        }
        begun[name] = time.monotonic()
        await kube.create(ALLOCATIONS, body)

    following = asyncio.create_task(follow())
    start = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(create(number) for number in range(count)))
            await following
    finally:
        following.cancel()
        if len(ended) < count:
            print(f"only {len(ended)} of {count} were done", file=sys.stderr)
    return count / (max(ended.values()) - start), [ended[name] - begun[name] for name in ended]


async def clear(kube: Kube, namespace: str, *, finalizers: bool = True) -> None:
    """Deletes what `load` made, and waits; without honouring finalizers where nobody is there to take them away."""
    for resource in (ALLOCATIONS, PROXY_MAPPINGS):
        items = await kube.list(resource, namespace)
        await asyncio.gather(*(kube.delete(resource, item["metadata"]["name"], namespace) for item in items))
        if not finalizers:
            free = {"metadata": {"finalizers": []}}
            patches = (kube.merge_patch(resource, item["metadata"]["name"], free, namespace) for item in items)
            await asyncio.gather(*patches, return_exceptions=True)  # some are gone already
    async with asyncio.timeout(LIMIT_S):
        while await kube.list(ALLOCATIONS, namespace):  # noqa: ASYNC110 - the API server tells by being asked
            await asyncio.sleep(0.2)


async def while_running(process: subprocess.Popen[bytes], work: Coroutine[Any, Any, T]) -> T:
    """What the work gives. Raises RuntimeError when the process ends first: nobody would ever do the work's objects."""
    task = asyncio.create_task(work)
    while not (await asyncio.wait({task}, timeout=1))[0]:
        if (status := process.poll()) is not None:
            task.cancel()
            raise RuntimeError(f"{process.args!r} ended with status {status}; its output above says why")
    return task.result()


async def empty(mesh: Mesh, namespace: str, count: int) -> Figures:
    """The baseline."""
    config = await mesh.operator_kubeconfig()
    process = subprocess.Popen([sys.executable, "-P", str(EMPTY), str(config)], env=os.environ)  # noqa: ASYNC220
    try:
        await asyncio.sleep(4)
        start, before = resident(process.pid) / 1024, cpu_s(process.pid)
        rate, latency = await while_running(
            process,
            load(mesh.kube, namespace, count, lambda item: ANNOTATION in (item["metadata"].get("annotations") or {})),
        )
        full = resident(process.pid) / 1024
        return Figures(rate, start, full, (cpu_s(process.pid) - before) * 1000 / count, latency)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        await clear(mesh.kube, namespace, finalizers=False)


async def ours(mesh: Mesh, namespace: str, count: int) -> Figures:
    """The operator."""
    async with mesh.operator() as operator, mesh.reporting():
        await asyncio.sleep(2)
        start, before = resident(operator.process.pid) / 1024, cpu_s(operator.process.pid)
        rate, latency = await load(
            mesh.kube,
            namespace,
            count,
            lambda item: is_true((item.get("status") or {}).get("conditions") or (), "Ready"),
        )
        full = resident(operator.process.pid) / 1024
        used = cpu_s(operator.process.pid) - before
        await clear(mesh.kube, namespace)
        return Figures(rate, start, full, used * 1000 / count, latency)


def report(mine: list[Figures], base: list[Figures], objects: int) -> list[Row]:
    """Rows for the table and the file."""

    def row(name: str, unit: str, pick: Callable[[Figures], float]) -> Row:
        own, other = ([pick(figures) for figures in group] for group in (mine, base))
        return compared(name, unit, own, "empty kopf operator", other)

    return [
        row(f"throughput of {objects} at once", "objects/s", lambda figures: figures.per_second),
        row("memory at start", "MiB", lambda figures: figures.start_mib),
        row(f"memory after {objects}", "MiB", lambda figures: figures.full_mib),
        row("processor time an object", "ms", lambda figures: figures.cpu_ms),
        row("apply to done, p50", "s", lambda figures: percentile(figures.latency, 0.5)),
        row("apply to done, p99", "s", lambda figures: percentile(figures.latency, 0.99)),
    ]


async def run(objects: int, repetitions: int) -> int:
    """1 when a bound is missed."""
    mine: list[Figures] = []
    base: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="hypermesh-bench-") as directory:
        async with running_mesh(Path(directory)) as mesh:
            await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-0", 1 << 40)
            for turn in range(repetitions):
                base.append(await empty(mesh, f"empty-{turn}", objects))
                mine.append(await ours(mesh, f"ours-{turn}", objects))
                print(
                    f"repetition {turn + 1}: empty {base[-1].per_second:.0f}/s, ours {mine[-1].per_second:.0f}/s",
                    flush=True,
                )
    rows = report(mine, base, objects)
    publish("controller", rows)
    throughput, memory = rows[0]["ratio"], rows[2]["ratio"]
    missed = [
        text
        for text, bad in (
            (f"throughput ratio {throughput} is below 0.4", throughput < 0.4),
            (f"memory ratio {memory} is above 1.3", memory > 1.3),
        )
        if bad
    ]
    for text in missed:
        print(f"MISSED: {text}")
    return 1 if missed else 0


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    sys.exit(asyncio.run(run(chosen.objects, chosen.repetitions)))


if __name__ == "__main__":
    main()
