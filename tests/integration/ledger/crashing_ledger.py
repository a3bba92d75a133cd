"""The ledger's own supervisor and application, with one difference: the application kills itself once, at one point.

    python crashing_ledger.py POINT MARKER run --home ...       (then the same arguments as hypermesh-ledger)

The file MARKER arms the point; the crash removes it, so the application that is started next runs undisturbed. With
POINT `any`, every point can crash, and what the file MARKER says names the one that does; the supervisor then starts
both again without waiting longer each time. The file MARKER.cometbft holds a number: CometBFT, when it is started next,
ends at its own crash point of that number (its FAIL_TEST_INDEX: the ten places of its commit path that its authors
marked, counted on over blocks).

Beside MARKER, in MARKER.blocks, every InitChain and FinalizeBlock request is kept, one file for each different one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypermesh_ledger import application, main, store, supervisor
from hypermesh_ledger.abci import server
from hypermesh_ledger.core import Core
from hypermesh_ledger.options import find_cometbft
from hypermesh_ledger.supervisor import Commands

POINTS = (
    *("info", "prepare_proposal", "process_proposal", "finalize_block", "finalize_block_unanswered"),
    *("commit", "in_transaction", "written", "decided", "commit_unanswered"),
)
"""Of an application that has a state; all of them are passed in every block, info at every start of CometBFT."""
START_COMETBFT = 'if [ -f "$0" ]; then FAIL_TEST_INDEX=$(cat "$0"); export FAIL_TEST_INDEX; rm "$0"; fi; exec "$@"'


def crash(marker: Path, point: str) -> None:
    """As if the machine lost power, as far as this process is concerned."""
    if marker.exists() and marker.read_text() in ("", point):
        marker.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, marker: Path, point: str) -> None:
    """Crash just before owner.name runs."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        crash(marker, point)
        return original(*args, **named)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, marker: Path, point: str) -> None:
    """Crash as soon as owner.name has returned."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        crash(marker, point)
        return result

    setattr(owner, name, wrapped)


def in_method(name: str, marker: Path, point: str, answered: bool) -> None:
    """Crash when CometBFT calls an ABCI method: before it runs, or when it has run but not answered."""
    original = server.METHODS[name]

    async def wrapped(core: Core, request: Any) -> Any:
        if not answered:
            crash(marker, point)
        response = await original(core, request)
        if answered:
            crash(marker, point)
        return response

    server.METHODS[name] = wrapped


def arm(point: str, marker: Path) -> None:
    """Install the crash point."""
    match point:
        case "any":
            for each in POINTS:
                arm(each, marker)
        case "prepare_proposal" | "process_proposal" | "finalize_block" | "commit" | "info" | "init_chain":
            in_method(point, marker, point, answered=False)
        case "finalize_block_unanswered" | "commit_unanswered" | "init_chain_unanswered":
            in_method(point.removesuffix("_unanswered"), marker, point, answered=True)
        case "in_transaction":  # some of a block's writes done, the LMDB transaction open
            after(store, "_write", marker, point)
        case "written":  # durable, but nobody told
            before(store.Store, "advance", marker, point)
        case "decided":  # readers see it, submitters not yet
            after(store.Store, "advance", marker, point)
        case _:
            raise SystemExit(f"no crash point {point}")


def record(name: str, directory: Path) -> None:
    """Keep what CometBFT asks; the same bytes asked again, as after a crash, are the same file."""
    original = server.METHODS[name]
    directory.mkdir(exist_ok=True)

    async def wrapped(core: Core, request: Any) -> Any:
        asked = request.SerializeToString(deterministic=True)
        height = getattr(request, "height", 0)
        path = directory / f"{height:08}-{hashlib.sha256(asked).hexdigest()[:16]}"
        path.with_suffix(".tmp").write_bytes(asked)
        path.with_suffix(".tmp").rename(path)
        return await original(core, request)

    server.METHODS[name] = wrapped


def run() -> int:
    point, marker, *arguments = sys.argv[1:]
    if arguments[0] == "application":
        arm(point, Path(marker))
        for name in ("init_chain", "finalize_block"):
            record(name, Path(f"{marker}.blocks"))
        return application.main(arguments[1:])
    if point == "any":
        supervisor.BACKOFF_S = supervisor.BACKOFF_S[:1]  # type: ignore[misc]
    options, command = main.parse(arguments)
    prefix = [sys.executable, "-P", __file__, point, marker, "application"]
    cometbft = find_cometbft(options.cometbft)
    if cometbft is None:
        raise SystemExit("CometBFT is missing: run `make tools`")
    home = options.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    arguments = command[command.index("hypermesh_ledger.application") + 1 :]
    start = ["/bin/sh", "-c", START_COMETBFT, f"{marker}.cometbft", str(cometbft), "start", "--home", str(home)]
    asyncio.run(main.supervise(home, Commands([*prefix, *arguments], start)))
    return 0


if __name__ == "__main__":
    sys.exit(run())
