"""Probes over real HTTP on ::1, JSON logs, and the orderly end of a process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from hypermesh_clients.serving import JsonFormatter, Probes, run_until_signal


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://[::1]:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_probes_tell_which_check_fails_and_why() -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(3)
    probes = Probes(0, {"watch": lambda: None}, host="::1", registry=registry)
    await probes.start()
    try:
        assert await get(probes.port, "/healthz") == (200, "ok\n")
        assert await get(probes.port, "/readyz") == (200, "[+] watch\n")
        probes.add("ledger", lambda: "no block for 30 s")
        assert await get(probes.port, "/readyz") == (503, "[+] watch\n[-] ledger: no block for 30 s\n")
        probes.add("ledger", lambda: str(1 / 0))
        status, text = await get(probes.port, "/readyz")
        assert status == 503
        assert "the check itself failed: ZeroDivisionError" in text
        assert (await get(probes.port, "/healthz"))[0] == 200
        assert "things_total 3.0" in (await get(probes.port, "/metrics"))[1]
    finally:
        await probes.stop()


def test_log_lines_are_json_with_extras_and_exceptions() -> None:
    formatter = JsonFormatter("agent")
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 30, "f", 1, "said %s", ("this\nway",), sys.exc_info())
    record.node = "n1"
    line = formatter.format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["message"] == "said this\nway"
    assert entry["level"] == "warning"
    assert (entry["process"], entry["node"]) == ("agent", "n1")
    assert "ValueError: broken" in entry["exception"]


async def test_a_signal_cancels_and_waits() -> None:
    ended = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    await asyncio.wait_for(run_until_signal(work(), work()), 10)
    assert ended == [True, True]


async def test_a_failure_of_one_ends_all_and_is_raised() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def failing() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await asyncio.wait_for(run_until_signal(endless(), failing()), 10)
    assert ended == [True]


async def test_all_done_is_the_end() -> None:
    await asyncio.wait_for(run_until_signal(asyncio.sleep(0), asyncio.sleep(0)), 10)


def test_clients_import_neither_the_official_client_nor_yaml() -> None:
    """Every pod pays for what the shared modules import."""
    code = (
        "import sys, hypermesh_clients.kube, hypermesh_clients.kube_leases, hypermesh_clients.serving\n"
        "print([name for name in ('kubernetes', 'kopf', 'yaml', 'numpy', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
