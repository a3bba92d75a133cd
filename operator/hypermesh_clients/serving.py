"""What every process needs to be run by Kubernetes: JSON logs, probes and metrics, an orderly end.

Logs are one JSON object a line on stderr. Probes are plain HTTP on [::]: `/healthz` says the event loop
turns, `/readyz` asks each named check and tells which one fails and why, `/metrics` is Prometheus text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""A readiness check: None when fine, else one sentence that says what is waited for."""

METRICS_PORT = 7470
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One line, one object: time, level, process, logger, message, then whatever `extra=` gave."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        seconds = int(record.created)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int((record.created - seconds) * 1000):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def setup_logging(process: str, level: str | None = None) -> None:
    """Sends all logging to stderr as JSON lines; level from LOG_LEVEL unless given (default INFO)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    wanted = (level or os.environ.get("LOG_LEVEL") or "INFO").upper()
    known = wanted in logging.getLevelNamesMapping()
    logging.basicConfig(level=wanted if known else "INFO", handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    if not known:
        logging.getLogger(__name__).warning("LOG_LEVEL %r is unknown, INFO is used; choose DEBUG, INFO, …", wanted)


class Probes:
    """The HTTP server for kubelet and Prometheus. Add checks any time before or after `start()`."""

    def __init__(
        self,
        port: int = METRICS_PORT,
        checks: Mapping[str, Check] | None = None,
        *,
        host: str = "::",
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.port = port
        self._host = host
        self._checks: dict[str, Check] = dict(checks or {})
        self._registry = registry
        self._runner: web.AppRunner | None = None

    def add(self, name: str, check: Check) -> None:
        """Adds or replaces the readiness check `name`."""
        self._checks[name] = check

    def failing(self) -> dict[str, str]:
        """Name → reason of each check that fails now; a check that raises fails with its error."""
        reasons: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                reason = check()
            except Exception as error:  # noqa: BLE001 - a broken check must not look like a ready process
                reason = f"the check itself failed: {error!r}"
            if reason is not None:
                reasons[name] = reason
        return reasons

    async def start(self) -> None:
        """Listens; `port` holds the real one afterwards when 0 was asked for. Raises OSError if taken."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthy)
        application.router.add_get("/readyz", self._ready)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthy(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        failing = self.failing()
        lines = [f"[-] {name}: {failing[name]}" if name in failing else f"[+] {name}" for name in self._checks]
        return web.Response(text="\n".join([*lines, ""]), status=503 if failing else 200)


async def until_signal() -> None:
    """Returns at the first SIGTERM or SIGINT; a second one ends the process the usual way."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def run_until_signal(*works: Coroutine[Any, Any, Any]) -> None:
    """Runs `works` side by side until a signal cancels them, one fails (its error is raised) or all end."""
    stopper = asyncio.create_task(until_signal(), name="signals")
    tasks = [asyncio.create_task(work) for work in works]
    together = asyncio.create_task(_all(tasks))
    try:
        await asyncio.wait({stopper, together}, return_when=asyncio.FIRST_COMPLETED)
        if together.done():
            together.result()
    finally:
        for task in (stopper, together, *tasks):
            task.cancel()
        await asyncio.gather(stopper, together, *tasks, return_exceptions=True)


async def _all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks)
