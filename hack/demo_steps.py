"""Run commands as the steps of a story: a line each, a spinner on a terminal, the log's end on failure."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console


class Failed(Exception):
    """A step failed; the message says which and what to do."""


class Story:
    """Steps in order, with their times. `logs` receives one file a step."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self.console = Console(highlight=False)
        self.started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def run(
        self,
        title: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        show: bool = False,
        stream: bool = False,
        timeout: float = 3600,
    ) -> None:
        """Run one command to its end; `show` prints its output afterwards, `stream` while it runs."""
        started = time.monotonic()
        log = self.logs / (title.replace("/", "-").replace(" ", "-")[:40] + ".log")
        if stream:
            self.say(f"▸ {title}")
            done = subprocess.run(command, env=self._env(env), timeout=timeout, check=False)
            if done.returncode != 0:
                raise Failed(f"{title}: {command[0]} ended with {done.returncode}")
            return
        with self.console.status(title) if self.console.is_terminal else _Quiet():
            done_text = subprocess.run(
                command,
                env=self._env(env),
                input=stdin,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        log.write_text(done_text.stdout)
        if done_text.returncode != 0:
            tail = "\n".join(done_text.stdout.splitlines()[-25:])
            raise Failed(f"{title}: {' '.join(command)} ended with {done_text.returncode}\n{tail}\nwhole log: {log}")
        self.say(f"✓ {title} ({time.monotonic() - started:.1f} s)")
        if show:
            self.say("\n".join("    " + line for line in done_text.stdout.splitlines()))

    def output(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
        """Standard output of a short command; raises Failed with its error text."""
        done = subprocess.run(command, env=self._env(env), text=True, capture_output=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.rstrip("\n")

    @staticmethod
    def _env(extra: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **(extra or {})}


class _Quiet:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
