"""The chart installed by helm on a real API server, and our programs run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Cluster:
    """An API server without controllers, a chart that may be changed, and what helm said when it installed that."""

    kubeconfig: Path
    chart: Path
    notes: str

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """One of our pinned programs on this cluster."""
        paths = (str(ROOT / "build" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": os.pathsep.join(paths)}
        return subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False
        )

    def output(self, *command: str, text: str = "") -> str:
        done = self.run(*command, text=text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create(self, manifest: str) -> None:
        """Once the server goes by the newest definitions, which it takes a few seconds after it stored them."""
        for _ in range(120):
            done = self.run("kubectl", "create", "--validate=strict", "-f", "-", text=manifest)
            if done.returncode == 0:
                return
            time.sleep(0.25)
        raise AssertionError(done.stderr)

    def get(self, *names: str) -> dict[str, Any]:
        return dict(json.loads(self.output("kubectl", "get", *names, "-o", "json")))
