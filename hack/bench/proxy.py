"""Cost of the proxy: programming the kernel by netlink beside the nft program, and a read through an address beside
the same read straight from the node.

    PYTHONSAFEPATH=1 python hack/bench/proxy.py [--repetitions 5] [--elements 10000] [--reads 2000]

Needs root and nft. It runs in network and mount namespaces of its own (a node's, and a consumer's one veth away),
so the machine's own tables are not touched. Medians of the repetitions, both sides interleaved in the same run.
Reads are 4 KiB by gRPC over TLS; beside them the same client speaks to the node's own address, so the ratio is what
the translation costs. Prints a table and writes build/bench/proxy.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(Path(__file__).parent), *(str(ROOT / "tests" / kind / "proxy") for kind in ("integration", "unit"))]

from _rows import Row, compared, percentile, publish  # noqa: E402
from namespaces import HERE, Wire, run, wired  # noqa: E402
from node_under_test import tls_identity  # noqa: E402

from hypermesh import addressing  # noqa: E402
from hypermesh.v1 import ledger_pb2  # noqa: E402
from hypermesh_agent.enforcement.regions import FileRegion  # noqa: E402
from hypermesh_agent.proxy.kernel import NetlinkKernel  # noqa: E402
from hypermesh_agent.proxy.mappings import TCP, Difference, Key, Target  # noqa: E402
from hypermesh_agent.proxy.routes import Route, RouteTable  # noqa: E402
from hypermesh_agent.serving.authorization import Desk, Served  # noqa: E402
from hypermesh_agent.serving.server import ResourceServer  # noqa: E402
from hypermesh_clients.resource import ResourceClient  # noqa: E402

INSIDE = "HYPERMESH_BENCH_INSIDE"
OWN = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
ADDRESS = OWN[4 << 36 | 1]
TOKEN = "bench"
PORT = 7443
REGION = 64 << 20
READ = 4096


def milliseconds(deed: Callable[[], object]) -> float:
    begin = time.perf_counter()
    deed()
    return (time.perf_counter() - begin) * 1000


# -- programming -----------------------------------------------------------------------------------------


def mappings(count: int) -> dict[Key, Target]:
    ends = time.time_ns() // 1_000_000 + 3_600_000
    return {Key(OWN[4 << 36 | n].packed, TCP, PORT): Target(HERE.packed, PORT, ends) for n in range(count)}


def nft_script(keys: dict[Key, Target]) -> str:
    """The same elements as a script for `nft -f`."""
    lines = (f"{IPv6Address(key.address)} . tcp . {PORT} timeout 1h : {HERE} . {PORT}" for key in keys)
    return f"add element ip6 hypermesh endpoints {{ {', '.join(lines)} }}"


def programming(count: int, repetitions: int, directory: Path) -> list[Row]:
    """Load many, add one, read all: ours beside nft's."""
    kernel, wanted, script = NetlinkKernel(), mappings(count), directory / "script.nft"
    script.write_text(nft_script(wanted))
    ours: dict[str, list[float]] = {"load": [], "one": [], "read": []}
    theirs: dict[str, list[float]] = {"load": [], "one": [], "read": []}
    extra = {Key(OWN[7 << 36].packed, TCP, PORT): next(iter(wanted.values()))}
    single = nft_script(extra)
    for _ in range(repetitions):
        kernel.rebuild(OWN, {})
        ours["load"].append(milliseconds(lambda: kernel.change(Difference(wanted, frozenset()))))
        ours["read"].append(milliseconds(kernel.read))
        ours["one"].append(milliseconds(lambda: (kernel.change(Difference(extra, frozenset())), kernel.read(extra))))
        assert len(kernel.read()) == count + 1
        kernel.rebuild(OWN, {})
        theirs["load"].append(milliseconds(lambda: run("nft", "-f", str(script))))
        theirs["read"].append(milliseconds(lambda: run("nft", "-j", "list", "map", "ip6", "hypermesh", "endpoints")))
        theirs["one"].append(milliseconds(lambda: run("nft", single)))
        assert len(kernel.read()) == count + 1
    kernel.drop()
    kernel.close()
    return [
        compared(f"load {count} mappings, netlink", "ms", ours["load"], "nft -f", theirs["load"]),
        compared(f"add 1 to {count} and read it back, netlink", "ms", ours["one"], "nft add", theirs["one"]),
        compared(f"read {count} mappings, netlink", "ms", ours["read"], "nft -j list", theirs["read"]),
    ]


# -- reading ---------------------------------------------------------------------------------------------


async def serve(directory: Path) -> None:
    """The node: the real resource server over a tmpfs file, and the mapping and route to it."""
    run("mount", "-t", "tmpfs", "tmpfs", str(directory))
    path = directory / "region"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, REGION)
    tls = tls_identity(addressing.tls_name(ADDRESS))
    (directory / "ca.crt").write_bytes(tls.root_pem)
    desk = Desk("bench", OWN)
    ends = time.time_ns() // 1_000_000 + 3_600_000
    desk.open(
        Served(
            address=ADDRESS.packed,
            capability_hash=hashlib.sha256(TOKEN.encode()).digest(),
            type=ledger_pb2.ASSET_TYPE_MEMORY,
            amount=REGION,
            expires_ms=ends,
            node_name="bench",
            asset_name="bench",
            attributes=dict,
            region=FileRegion(path, REGION, may_wait=False),
        )
    )
    server = ResourceServer(desk, tls, str(HERE), PORT)
    server.bind()
    await server.start()
    kernel, routes = NetlinkKernel(), RouteTable()
    routes.add(Route(OWN, None, HERE))
    kernel.rebuild(OWN, {Key(ADDRESS.packed, TCP, PORT): Target(HERE.packed, PORT, ends)})
    print("ready", str(directory / "ca.crt"), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()
    kernel.drop()


def direct(root: bytes) -> ResourceClient:
    """A client that skips the translation: same name, same token, but connected to the node's own address."""
    import grpc

    from hypermesh.v1 import resource_pb2_grpc

    client = ResourceClient(str(ADDRESS), TOKEN, root)
    credentials = grpc.ssl_channel_credentials(root_certificates=root)
    options = [("grpc.ssl_target_name_override", addressing.tls_name(ADDRESS)), ("grpc.max_receive_message_length", -1)]
    client._channel = grpc.aio.secure_channel(f"ipv6:[{HERE}]:{PORT}", credentials, options=options)
    client._stub = resource_pb2_grpc.ResourceStub(client._channel)  # type: ignore[no-untyped-call]
    return client


async def consume(root: bytes, reads: int) -> dict[str, list[float]]:
    """Interleaved 4 KiB reads (microseconds each) and 32 MiB transfers (MiB/s)."""
    took: dict[str, list[float]] = {"proxy": [], "direct": [], "proxy bulk": [], "direct bulk": []}
    async with ResourceClient(str(ADDRESS), TOKEN, root) as through, direct(root) as straight:
        pair = (("proxy", through), ("direct", straight))
        for _, client in pair:
            await client.read(0, READ)
        for turn in range(reads):
            offset = turn * READ % REGION
            for name, client in pair:
                begin = time.perf_counter()
                await client.read(offset, READ)
                took[name].append((time.perf_counter() - begin) * 1e6)
        for _ in range(5):
            for name, client in pair:
                begin = time.perf_counter()
                await client.read(0, 32 << 20)
                took[f"{name} bulk"].append(32 / (time.perf_counter() - begin))
    return took


def reading(reads: int, wire: Wire, directory: Path) -> list[Row]:
    """Server and client are processes of their own, as in life."""
    wire.route(OWN)
    program = [sys.executable, __file__]
    server = subprocess.Popen(
        [*program, "--serve", str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ready, _, root = server.stdout.readline().strip().partition(" ")
        assert ready == "ready"
        took = json.loads(run(*wire.consumer(*program, "--consume", root, "--reads", str(reads))))
    finally:
        server.communicate("", timeout=30)
    p99 = {name: [percentile(took[name], 0.99)] for name in ("proxy", "direct")}
    baseline = "at the node's address"
    return [
        compared("4 KiB read p50 at a proxy address", "µs", took["proxy"], baseline, took["direct"]),
        compared("4 KiB read p99 at a proxy address", "µs", p99["proxy"], baseline, p99["direct"]),
        compared("32 MiB read at a proxy address", "MiB/s", took["proxy bulk"], baseline, took["direct bulk"]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--elements", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=2_000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--consume", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.serve:
        asyncio.run(serve(wanted.serve))
        return 0
    if wanted.consume:
        print(json.dumps(asyncio.run(consume(wanted.consume.read_bytes(), wanted.reads))))
        return 0
    if os.geteuid() != 0 or not shutil.which("nft"):
        print("hack/bench/proxy.py needs root and the nft program (Debian package nftables)", file=sys.stderr)
        return 1
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        inside = ["unshare", "--net", "--mount", "--propagation", "private", "--", sys.executable, *sys.argv]
        os.execvp(inside[0], inside)
    run("ip", "link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as folder, wired() as wire:
        served = Path(folder) / "served"
        served.mkdir()
        rows = programming(wanted.elements, wanted.repetitions, Path(folder))
        try:
            rows += reading(wanted.reads, wire, served)
        finally:  # also after a failure, so that the folder can go
            subprocess.run(["umount", "-l", str(served)], check=False)
    publish("proxy", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
