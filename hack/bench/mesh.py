"""The whole mesh from outside: time from apply to Ready, one by one and at once, and what each process holds in memory.

    python hack/bench/mesh.py [--single 50] [--burst 500]

Needs the embedded cluster with the chart (`make demo`). Client and watch are the project's own; each time is from the
request's start to the watch event that shows Ready.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last: it must shadow nothing

from _rows import ROOT, Row, percentile, publish, resident, single

from hypermesh.conditions import is_true
from hypermesh_clients.kube import Kube, WatchType
from hypermesh_clients.kube_resources import ALLOCATIONS, NAMESPACES

NAMESPACE = "bench"
LIMIT_S = 300.0
PROCESSES = {
    "agent": "/bin/hypermesh-agent run",
    "operator": "/bin/hypermesh-operator",
    "trustchain": "/bin/hypermesh-trustchain",
    "ledger application": "-m hypermesh_ledger.application",
    "cometbft": "cometbft start",
}


class Times:
    """When each Allocation was asked for, and when the watch showed it Ready."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self.changed = asyncio.Event()

    async def follow(self, kube: Kube) -> None:
        """For ever."""
        async for event in kube.watch(ALLOCATIONS, NAMESPACE):
            if event.type not in (WatchType.ADDED, WatchType.MODIFIED):
                continue
            name = event.object["metadata"]["name"]
            conditions = event.object.get("status", {}).get("conditions", ())
            if name in self.begun and is_true(conditions, "Ready"):
                self.ready.setdefault(name, time.monotonic())
                self.changed.set()

    async def create(self, kube: Kube, name: str) -> None:
        self.begun[name] = time.monotonic()
        body = {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"type": "memory", "resources": {"memory": "1Mi"}},
        }
        await kube.create(ALLOCATIONS, body)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT_S):
            while len(self.ready) < count:
                self.changed.clear()
                await self.changed.wait()

    def latencies(self) -> list[float]:
        return sorted(self.ready[name] - self.begun[name] for name in self.ready)


async def one_by_one(kube: Kube, count: int) -> list[float]:
    """Latencies of Allocations that each wait for the one before."""
    times = Times()
    following = asyncio.create_task(times.follow(kube))
    try:
        for number in range(count):
            await times.create(kube, f"single-{number}")
            await times.until(number + 1)
    finally:
        following.cancel()
    return times.latencies()


async def at_once(kube: Kube, count: int) -> tuple[float, list[float]]:
    """Objects a second until the last is Ready, and each one's latency."""
    times = Times()
    following = asyncio.create_task(times.follow(kube))
    start = time.monotonic()
    try:
        await asyncio.gather(*(times.create(kube, f"burst-{number}") for number in range(count)))
        await times.until(count)
    finally:
        following.cancel()
    return count / (max(times.ready.values()) - start), times.latencies()


async def clear(kube: Kube) -> float:
    """Seconds to give everything back."""
    start = time.monotonic()
    items = await kube.list(ALLOCATIONS, NAMESPACE)
    await asyncio.gather(*(kube.delete(ALLOCATIONS, item["metadata"]["name"], NAMESPACE) for item in items))
    async with asyncio.timeout(LIMIT_S):
        while await kube.list(ALLOCATIONS, NAMESPACE):  # noqa: ASYNC110 - the API server tells by being asked
            await asyncio.sleep(0.1)
    return time.monotonic() - start


def memory() -> Iterator[Row]:
    """Resident memory of the processes in the containers of the embedded cluster, largest of each kind."""
    found: dict[str, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            size = resident(int(path.name))
        except OSError:
            continue
        for name, pattern in PROCESSES.items():
            if pattern in command:
                found[name] = max(found.get(name, 0), size)
    for name, size in sorted(found.items()):
        yield single(f"memory of {name}", "MiB", size / 1024)


def percentiles(name: str, values: list[float]) -> Iterator[Row]:
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        yield single(f"{name}, {label}", "s", percentile(values, share)) | {"repetitions": len(values)}


def kubeconfig() -> Path:
    """The embedded cluster's. Raises SystemExit where it is not up."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "cluster"), "kubeconfig"], text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit("the embedded cluster is not up: run `make demo` first")
    return Path(done.stdout.strip())


async def measure(config: Path, alone: int, burst: int) -> list[Row]:
    rows: list[Row] = []
    async with Kube.from_kubeconfig(config) as kube:
        await kube.apply(NAMESPACES, {"metadata": {"name": NAMESPACE}}, field_manager="bench")
        await clear(kube)
        rows += percentiles("apply to Ready, one by one", await one_by_one(kube, alone))
        rate, latencies = await at_once(kube, burst)
        rows.append(single(f"{burst} at once", "objects/s", rate))
        rows += percentiles(f"apply to Ready, {burst} at once", latencies)
        rows += memory()
        rows.append(single(f"release {alone + burst}", "s", await clear(kube)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--single", type=int, default=50)
    parser.add_argument("--burst", type=int, default=500)
    chosen = parser.parse_args()
    publish("mesh", asyncio.run(measure(kubeconfig(), chosen.single, chosen.burst)))


if __name__ == "__main__":
    main()
