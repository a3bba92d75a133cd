"""`hypermesh-ledger restore`: a backup becomes an empty directory's ledger, or nothing is there.

    tar -> .restoring/ (sums, tree against app hash, chain) -> whose key may sign? -> moved into place

No key signs a second time what it may have signed after the backup, as nobody can know that. So:
  a lone validator keeps its key, and goes on from the backup; what was committed after it is lost.
  one of a set gets a new consensus key, with which it takes its seat again by its FALCON key; the others go on.
  a ledger that was stopped, backed up and is moved (`running` is false) may keep its key: it has signed nothing since.
  a whole set that is lost keeps its keys if told so: there is nobody left who saw what it signed. The backups' own
    records of votes go: whose backup is older signs these heights again, and would be shown as a liar by them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from hypermesh_ledger import keys
from hypermesh_ledger.archives import FORMAT, ArchiveRefused, Progress, add_home, unpack
from hypermesh_ledger.errors import StoreUnusable
from hypermesh_ledger.execution.validators import holders
from hypermesh_ledger.home import RESTORING, new_validator
from hypermesh_ledger.store import Store
from hypermesh_ledger.supervisor import Misconfigured, sole

PARTS: Final = ("config", "data", "state")
VOTES: Final = "data/cs.wal"
"""What CometBFT has heard of the block under way; a start without it asks the others."""
STAYS: Final = frozenset({"lost+found", "lock", RESTORING})
"""What may be in a directory that counts as empty."""


class RestoreRefused(Exception):
    """Nothing was restored, and why."""


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    text = "make an empty directory the ledger of a backup"
    parser = commands.add_parser("restore", help=text, description=text)
    parser.add_argument("file", help="what `hypermesh-ledger backup` wrote; - for standard input")
    add_home(parser)
    parser.add_argument(
        "--same-key",
        action="store_true",
        help="one of several validators: keep the consensus key, of a ledger that was stopped before its backup",
    )
    parser.add_argument(
        "--set-is-lost",
        action="store_true",
        help="with --same-key: no validator of the set goes on, all are restored from backups",
    )


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 after one sentence on standard error."""
    tell = Progress("restore")
    try:
        if options.file == "-":
            said = restore(options.home.resolve(), sys.stdin.buffer, options.same_key, options.set_is_lost, tell)
        else:
            with Path(options.file).open("rb") as source:
                said = restore(options.home.resolve(), source, options.same_key, options.set_is_lost, tell)
    except ArchiveRefused as error:
        print(f"hypermesh-ledger restore: {options.file} is refused: {error}.", file=sys.stderr)  # noqa: T201  # its output
    except (RestoreRefused, StoreUnusable, Misconfigured, OSError) as error:
        print(f"hypermesh-ledger restore: {error}", file=sys.stderr)  # noqa: T201  # its output
    else:
        print(said, file=sys.stderr)  # noqa: T201  # its output
        return 0
    return 1


def restore(home: Path, source: IO[bytes], same_key: bool, set_is_lost: bool, tell: Callable[[int], None]) -> str:
    """What a person should know afterwards. Raises ArchiveRefused, RestoreRefused, StoreUnusable, OSError.

    Until all is in place `.restoring` is there, and neither `run` nor anything else takes the directory for a ledger.
    """
    home.mkdir(parents=True, exist_ok=True)
    with sole(home):
        into = _emptied(home)
        about = _about(unpack(source, into, tell))
        count = _check(into, about)
        fresh = count > 1 and not same_key
        if count > 1 and same_key and about["running"] and not set_is_lost:
            raise RestoreRefused(_DANGER.format(chain=about["chain_id"], height=about["height"]))
        if fresh:
            for name in ("config/priv_validator_key.json", "data/priv_validator_state.json"):
                (into / name).unlink(missing_ok=True)
            new_validator(into)
        if count > 1 and same_key and set_is_lost:
            shutil.rmtree(into / VOTES, ignore_errors=True)
        for name in PARTS:
            (into / name).rename(home / name)
        _sync(home)
        shutil.rmtree(into)
        _sync(home)
    place = f"chain {about['chain_id']} at height {about['height']} is restored to {home}."
    return f"{place} {_NEW_KEY if fresh else _SAME_KEY if count > 1 else _LONE}"


_DANGER: Final = (
    "The consensus key in this backup may have signed blocks of chain {chain} after height {height}: whoever signs two "
    "of one height is out for good. Restore without --same-key: a new key takes the seat. Only when no validator of "
    "the set goes on, and all are restored: add --set-is-lost."
)
_NEW_KEY: Final = "It has a new consensus key, with which it asks for its seat when it has caught up."
_SAME_KEY: Final = "It keeps its consensus key: see that the ledger it was taken from never starts again."
_LONE: Final = (
    "It goes on from there: what was committed after the backup is lost. See that the ledger it was taken from "
    "never starts again."
)


def _emptied(home: Path) -> Path:
    """The directory to unpack into. What a restore has left that was killed is removed: nothing else may have run."""
    into = home / RESTORING
    found = {path.name for path in home.iterdir()} - STAYS
    if into.exists():
        for name in found & set(PARTS):
            shutil.rmtree(home / name)
        shutil.rmtree(into)
        found -= set(PARTS)
    if found:
        raise RestoreRefused(f"{home} is not empty ({', '.join(sorted(found)[:5])}): nothing is ever overwritten.")
    into.mkdir(mode=0o700)
    return into


def _about(content: bytes) -> dict[str, Any]:
    try:
        about = json.loads(content)
        wanted = {"chain_id": str, "height": int, "app_hash": str, "running": bool}
        if about["format"] == FORMAT and all(isinstance(about[name], kind) for name, kind in wanted.items()):
            return dict(about)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ArchiveRefused(f"its backup.json is not of the form {FORMAT}")


def _check(into: Path, about: dict[str, Any]) -> int:
    """Number of validators. Raises ArchiveRefused, StoreUnusable for a state that is not the one of its app hash."""
    for name in (*PARTS, "config/genesis.json", "config/priv_validator_key.json", "data/priv_validator_state.json"):
        if not (into / name).exists():
            raise ArchiveRefused(f"it has no {name}")
    store = Store(into / "state")
    try:
        head = store.head
        chain = (store.snapshot.get(keys.CHAIN_ID) or b"").decode("utf-8", "replace")
        if (head.height, head.app_hash.hex(), chain) != (about["height"], about["app_hash"], about["chain_id"]):
            raise ArchiveRefused("its state is not the one that its backup.json names")
        return len(holders(store.snapshot))
    finally:
        store.close()


def _sync(directory: Path) -> None:
    """All that was written below: a restore happens seldom, so the whole volume is synced."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.sync()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
