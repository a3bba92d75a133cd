"""Says what is being made: one line that counts up on a terminal, plain lines (start, every 30 s, end) elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

TERMINAL_TICK = 0.5
LOG_TICK = 30.0


def clock(seconds: float) -> str:
    """Minutes and seconds, e.g. `4:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Step:
    """Context manager around one thing being made; reports time while it runs and how it ended."""

    def __init__(self, label: str, number: int, total: int, out: TextIO = sys.stderr) -> None:
        self._label = f"[{number}/{total}] {label}"
        self._out = out
        self._terminal = out.isatty()
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Step:
        self._say("...", final=False)
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._ticker.join()
        self._say("failed" if kind else "done", final=True)

    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._started

    def _tick(self) -> None:
        while not self._done.wait(TERMINAL_TICK if self._terminal else LOG_TICK):
            self._say("...", final=False)

    def _say(self, how: str, *, final: bool) -> None:
        text = f"{self._label} {how} {clock(self.elapsed())}"
        ending = "\n" if final or not self._terminal else ""
        self._out.write(f"\r\x1b[K{text}{ending}" if self._terminal else f"{text}\n")
        self._out.flush()
