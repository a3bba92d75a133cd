"""Processes that a process with gRPC starts all live: gRPC's handlers of fork stay out of it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILDREN = 400
PROGRAM = """
import asyncio
import os

import uvloop

FIRST
import grpc.aio


async def noise(channel):
    while True:
        try:
            await channel.unary_unary("/a/b")(b"", timeout=0.5)
        except grpc.aio.AioRpcError:
            pass
        await asyncio.sleep(0.001)


async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("[::1]:0")
    await server.start()
    channels = [grpc.aio.insecure_channel(f"[::1]:{each}") for each in (port, 1)]
    tasks = [asyncio.create_task(noise(each)) for each in channels]
    lost = 0
    for _ in range(CHILDREN):
        child = await asyncio.create_subprocess_exec("true")
        lost += await child.wait() != 0
    print(lost, len(tasks), flush=True)
    os._exit(0)


uvloop.run(main())
"""


def lost(first: str) -> int:
    """How many of CHILDREN ended otherwise than by themselves."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    program = PROGRAM.replace("FIRST", first).replace("CHILDREN", str(CHILDREN))
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout.split()[0])


@pytest.mark.parametrize("module", ["clients.ledger", "agent.main", "ledger.application", "trustchain.main"])
def test_who_talks_grpc_forks_safely(module: str) -> None:
    code = f"import hypermesh_{module}\nimport os\nprint(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0"]


def test_no_child_is_lost() -> None:
    assert lost("import hypermesh") == 0
