"""The ledger's own supervisor and application, with one difference: the application kills itself once, at one point.

    python crashing_ledger.py POINT MARKER run --home ...       (then the same arguments as hypermesh-ledger)

The file MARKER arms the point; the crash removes it, so the application that is started next runs undisturbed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypermesh_ledger import application, main, store
from hypermesh_ledger.abci import server
from hypermesh_ledger.core import Core
from hypermesh_ledger.options import find_cometbft
from hypermesh_ledger.supervisor import Commands


def crash(marker: Path) -> None:
    """As if the machine lost power, as far as this process is concerned."""
    if marker.exists():
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, marker: Path) -> None:
    """Crash just before owner.name runs."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        crash(marker)
        return original(*args, **named)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, marker: Path) -> None:
    """Crash as soon as owner.name has returned."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        crash(marker)
        return result

    setattr(owner, name, wrapped)


def in_method(name: str, marker: Path, answered: bool) -> None:
    """Crash when CometBFT calls an ABCI method: before it runs, or when it has run but not answered."""
    original = server.METHODS[name]

    async def wrapped(core: Core, request: Any) -> Any:
        if not answered:
            crash(marker)
        response = await original(core, request)
        crash(marker)
        return response

    server.METHODS[name] = wrapped


def arm(point: str, marker: Path) -> None:
    """Install the crash point."""
    match point:
        case "prepare_proposal" | "process_proposal" | "finalize_block" | "commit" | "info" | "init_chain":
            in_method(point, marker, answered=False)
        case "finalize_block_unanswered" | "commit_unanswered" | "init_chain_unanswered":
            in_method(point.removesuffix("_unanswered"), marker, answered=True)
        case "in_transaction":  # some of a block's writes done, the LMDB transaction open
            after(store, "_write", marker)
        case "written":  # durable, but nobody told
            before(store.Store, "advance", marker)
        case "decided":  # readers see it, submitters not yet
            after(store.Store, "advance", marker)
        case _:
            raise SystemExit(f"no crash point {point}")


def run() -> int:
    point, marker, *arguments = sys.argv[1:]
    if arguments[0] == "application":
        arm(point, Path(marker))
        return application.main(arguments[1:])
    options, command = main.parse(arguments)
    prefix = [sys.executable, "-P", __file__, point, marker, "application"]
    cometbft = find_cometbft(options.cometbft)
    if cometbft is None:
        raise SystemExit("CometBFT is missing: run `make tools`")
    home = options.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    arguments = command[command.index("hypermesh_ledger.application") + 1 :]
    asyncio.run(main.supervise(home, Commands([*prefix, *arguments], [cometbft, "start", "--home", str(home)])))
    return 0


if __name__ == "__main__":
    sys.exit(run())
