"""`hypermesh-ledger backup`: everything a ledger needs to go on from here, while it runs or while it stands.

    hold CometBFT for a moment: link or copy data/, begin to read the state -> let go
    -> one tar: keys and genesis, CometBFT's files, LMDB's copy of one height (see archives) -> FILE, for its owner only

The image is what a kill -9 at that moment would have left, which starts cleanly (tests crash it at every step); the
state's height is never above CometBFT's. It holds the validator's private keys. Restoring is in `restoring`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from hypermesh_ledger import fetching, keys
from hypermesh_ledger.archives import ABOUT, FORMAT, NAME, PIECE_BYTES, STATE, Progress, Writer, add_home
from hypermesh_ledger.errors import StoreUnusable
from hypermesh_ledger.execution.validators import holders
from hypermesh_ledger.holding import NotHeld, held
from hypermesh_ledger.home import RESTORING
from hypermesh_ledger.store import Snapshot, look
from hypermesh_ledger.supervisor import Misconfigured, sole

AGAIN_S: Final = 1.0
PATIENCE_S: Final = 60.0
"""A ledger that is just starting, or has just crashed, can be held a little later."""
LEFT_OUT: Final = frozenset({"LOCK", "LOG", "LOG.old"})
"""Of CometBFT's databases: made anew, or of no use."""
NOT_KEPT: Final = frozenset({"config.toml", "addrbook.json"})
_UNCHANGING: Final = re.compile(r".*\.(ldb|sst)|wal\.[0-9]+")


class BackupFailed(Exception):
    """There is no backup, and why."""


@dataclass(frozen=True, slots=True)
class About:
    """backup.json. height, time_ms and app_hash are the state's; running: the ledger went on after it."""

    format: str
    chain_id: str
    height: int
    time_ms: int
    app_hash: str
    validators: int
    running: bool
    taken: str


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    text = "write a backup of this directory's ledger, while it runs or not; it holds the validator's private keys"
    parser = commands.add_parser("backup", help=text, description=text)
    parser.add_argument("file", help="tar to write, which must not exist; - for standard output")
    add_home(parser)


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 after one sentence on standard error."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that CometBFT is let go
    home: Path = options.home.resolve()
    progress = Progress("backup")
    try:
        with _output(options.file) as out:
            about, size = write(home, out, progress)
    except (BackupFailed, NotHeld, StoreUnusable, Misconfigured, OSError) as error:
        print(f"hypermesh-ledger backup: {error}", file=sys.stderr)  # noqa: T201  # its output
        return 1
    where = "standard output" if options.file == "-" else options.file
    said = f"chain {about.chain_id} at height {about.height}: {size >> 10} KiB in {where}."
    print(f"{said} It holds the validator's private keys: keep it where only you can read it.", file=sys.stderr)  # noqa: T201  # its output
    return 0


@contextlib.contextmanager
def _output(name: str) -> Iterator[IO[bytes]]:
    """A file appears under its name when it is whole, and never in place of another."""
    if name == "-":
        if sys.stdout.isatty():
            raise BackupFailed("standard output is a terminal: redirect it into a file")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise BackupFailed(f"{path} is there already, and a backup is never overwritten: give another name")
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def write(home: Path, out: IO[bytes], tell: Progress) -> tuple[About, int]:
    """Write the backup; what it is, and its bytes. Raises BackupFailed, NotHeld, StoreUnusable, OSError."""
    if (home / RESTORING).exists() or not (home / "config" / "genesis.json").exists():
        raise BackupFailed(f"{home} holds no ledger: give its directory by --home")
    if fetching.interrupted(home):
        raise BackupFailed(f"the ledger in {home} is fetching its state from peers: ask again later")
    with contextlib.ExitStack() as stack:
        running = _running(home, stack)
        scratch = stack.enter_context(_scratch(home))
        state = stack.enter_context(_image(home, scratch, running))
        about = _about(state, running)
        if not about.height:
            raise BackupFailed(f"the ledger in {home} has no block yet, so there is nothing to back up")
        archive = Writer(out, tell)
        archive.add(ABOUT, json.dumps(asdict(about), indent=1).encode())
        for path in sorted((home / "config").iterdir()):
            if path.name not in NOT_KEPT:
                _add(archive, f"config/{path.name}", path)
        for path in sorted(scratch.rglob("*")):
            _add(archive, f"data/{path.relative_to(scratch)}", path)
        _add_state(archive, state)
        archive.close()
        return about, archive.bytes


def _running(home: Path, stack: contextlib.ExitStack) -> bool:
    """Whether a supervisor has the directory; if not, none gets it while the stack lasts."""
    try:
        stack.enter_context(sole(home))
    except Misconfigured:
        return True
    return False


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """On the same volume, so that files can be linked. What others left that were killed is removed."""
    run = home / "run"
    run.mkdir(exist_ok=True)
    for left in run.glob("backup-*"):
        if not Path(f"/proc/{left.name.removeprefix('backup-')}").exists():
            shutil.rmtree(left, ignore_errors=True)
    scratch = run / f"backup-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _image(home: Path, scratch: Path, running: bool) -> Iterator[Snapshot]:
    """CometBFT's files in scratch, and the state of a height that they reach. Raises NotHeld, StoreUnusable."""
    deadline = time.monotonic() + PATIENCE_S
    with look(home / "state") as begin:
        while True:
            try:
                with held(home) if running else contextlib.nullcontext():
                    _link(home / "data", scratch)
                    state = begin()
                break
            except NotHeld:
                if time.monotonic() > deadline:
                    raise
                shutil.rmtree(scratch)
                scratch.mkdir(mode=0o700)
                time.sleep(AGAIN_S)
        try:
            yield state
        finally:
            state.close()


def _link(data: Path, scratch: Path) -> None:
    """Files that are only ever written once are linked: that takes no time."""
    for path in sorted(data.rglob("*")):
        target = scratch / path.relative_to(data)
        if path.is_dir():
            target.mkdir(parents=True)
        elif path.is_file() and path.name not in LEFT_OUT:
            if _UNCHANGING.fullmatch(path.name):
                with contextlib.suppress(OSError):  # a volume without links
                    target.hardlink_to(path)
                    continue
            shutil.copyfile(path, target)


def _add(archive: Writer, name: str, path: Path) -> None:
    """Whatever else somebody left there would make the backup one that no restore takes."""
    if path.is_file() and NAME.fullmatch(name):
        archive.add_file(name, path)


def _about(state: Snapshot, running: bool) -> About:
    head = state.head
    chain = (state.get(keys.CHAIN_ID) or b"").decode()
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    count = len(holders(state))
    return About(FORMAT, chain, head.height, head.time_ms, head.app_hash.hex(), count, running, taken)


def _add_state(archive: Writer, state: Snapshot) -> None:
    """LMDB writes into a pipe, we read pieces from it: no second copy. Raises StoreUnusable, OSError."""
    reading, writing = os.pipe()
    failed: list[Exception] = []

    def copy() -> None:
        try:
            state.copy(writing)
        except (StoreUnusable, OSError) as error:
            failed.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as pipe:
            number = 0
            while piece := pipe.read(PIECE_BYTES):
                archive.add(f"{STATE}.{number:05}", piece)
                number += 1
    finally:
        thread.join()
    if failed:
        raise failed[0]
