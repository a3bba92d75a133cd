"""The real kubectl against the tests' API server."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

BINARY = Path(__file__).resolve().parents[3] / "build" / "bin" / "kubectl"


@dataclass(frozen=True)
class Kubectl:
    """kubectl of one kubeconfig."""

    kubeconfig: Path

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(BINARY), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints; it must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str, stdin: str | None = None) -> str:
        """What it complains of; it must fail."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"it was accepted: {done.stdout}"
        return done.stderr
