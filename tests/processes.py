"""Our own processes as tests start them: on free ports of ::1, with a log file and the probes each of them serves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

READY_S = 60.0
STOP_S = 20.0


def free_port() -> int:
    """A TCP port of ::1 that nobody listens on now."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Started:
    """A started process of ours, its HTTP port and its log, which several starts may share."""

    process: subprocess.Popen[bytes]
    probes: int
    log_file: Path

    @classmethod
    def start(
        cls, module: str, arguments: list[str], environment: Mapping[str, str], log_file: Path, probes: int
    ) -> Started:
        """`python -m MODULE ARGUMENTS` beside its log file, with its probes on that port."""
        variables = {**os.environ, "PYTHONSAFEPATH": "1", "HYPERMESH_METRICS_PORT": str(probes), **environment}
        command = [sys.executable, "-P", "-m", module, *arguments]
        with log_file.open("ab") as output:
            process = subprocess.Popen(command, env=variables, cwd=log_file.parent, stdout=output, stderr=output)
        return cls(process, probes, log_file)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; its exit status. Raises AssertionError, and kills it, when it does not end."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {STOP_S:g} s of SIGTERM:\n{self.log()[-4000:]}") from None

    def log(self) -> str:
        """Everything it logged."""
        return self.log_file.read_text(errors="replace")

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of one of its HTTP endpoints; 0 when nobody answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://[::1]:{self.probes}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    async def until_ready(self, saying: str = "") -> str:
        """What /readyz says as soon as it is 200 and names `saying`."""
        async with asyncio.timeout(READY_S):
            while True:
                status, text = await asyncio.to_thread(self.probe, "/readyz")
                if status == 200 and saying in text:
                    return text
                if self.process.poll() is not None:
                    raise AssertionError(f"the process ended:\n{self.log()[-4000:]}")
                await asyncio.sleep(0.05)
