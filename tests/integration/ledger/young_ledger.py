"""The ledger as it is, but for its measures of time: a chain of a hundred blocks has forgotten its first one.

    python young_ledger.py run --home ...       (the same arguments as hypermesh-ledger)

An idle one makes a block every IDLE_S, as fast as it can while the file `hurry` lies beside its directory; WINDOW
blocks are kept at least, and a chain of so many is replayed.

When the file `crash` lies there and names a point of a restore, the whole ledger is killed at that point, once:
supervisor, application and, with them, CometBFT.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypermesh_ledger import fetching, home, joining, main, retention
from hypermesh_ledger.abci import prepare_proposal
from hypermesh_ledger.store import Store

POINTS = ("marked", "wiped", "offered", "half", "unadopted", "adopted", "unended", "ended")
CRASH = Path("../crash")
HURRY = Path("../hurry")
IDLE_S = 1.5
WINDOW = 40


def shorten() -> None:
    """Measures of time."""
    home.EVIDENCE_BLOCKS, home.EVIDENCE_S = WINDOW // 2, 1  # type: ignore[misc]
    retention.Retention.__init__.__defaults__ = (WINDOW, 2_000)
    joining.SHORT_BLOCKS = WINDOW  # type: ignore[misc]
    original = prepare_proposal._patience
    prepare_proposal._patience = lambda core, block_ms: (
        0.01 if HURRY.exists() else min(original(core, block_ms), IDLE_S)
    )


def crash(point: str) -> None:
    """When it is that point's turn."""
    if CRASH.exists() and CRASH.read_text() == point:
        CRASH.unlink()
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, before: str | None = None, after: str | None = None, turn: int = 1) -> None:
    """Crash just before owner.name runs for the `turn`th time, or when it has."""
    original: Callable[..., Any] = getattr(owner, name)
    count = 0

    def wrapped(*args: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if before and count == turn:
            crash(before)
        answer = original(*args, **named)
        if after and count == turn:
            crash(after)
        return answer

    setattr(owner, name, wrapped)


def run() -> int:
    """The supervisor, or (named by it) the application."""
    from hypermesh_ledger import application

    shorten()
    if sys.argv[1] == "application":
        around(fetching, "_remove", before="marked")
        around(fetching, "begin", after="wiped")
        around(Store, "wipe", after="offered")
        around(Store, "restore", after="half", turn=32)
        around(Store, "adopt", before="unadopted", after="adopted")
        around(fetching, "end", before="unended", after="ended")
        return application.main(sys.argv[2:])
    original = main.application_command
    main.application_command = lambda options: [sys.executable, "-P", __file__, "application", *original(options)[4:]]
    return main.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
