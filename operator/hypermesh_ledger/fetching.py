"""While a ledger's state and blocks are replaced by a peer's snapshot: marked, so that a crash only begins it again.

    begin: marker -> wipe of state, blocks, snapshots -> CometBFT's state sync, with a key that signs nothing
        -> snapshot -> first block on top of it -> end: marker gone -> both processes start again, with their own key

While the marker is there nothing in the directory is worth keeping but keys, genesis and priv_validator_state.json,
which stay. It is written only when there is nothing to lose: an empty state, or one that more than half of the peers
have left behind. A key of its own for this time: CometBFT does not sync the state of whom the genesis names as the only
validator, and nobody who restores has anything to sign.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hypermesh_clients.files import write_durably
from hypermesh_ledger.validator_key import write_validator_key

MARKER: Final = Path("config/fetching")
PLACE: Final = Path("fetching")
KEY: Final = PLACE / "key.json"
SIGNED: Final = PLACE / "signed.json"
CHUNKS: Final = PLACE / "chunks"
LIGHT_SOCKETS: Final = (Path("run/light-0.sock"), Path("run/light-1.sock"))
KEPT: Final = "priv_validator_state.json"
"""In data/: what this validator has signed. Without it, it could sign two blocks of one height."""
SILENT_S: Final = 60.0
"""A restore that makes no step for so long is begun again."""


def interrupted(home: Path) -> bool:
    """Whether a restore has begun and not ended."""
    return (home / MARKER).exists()


def begin(home: Path) -> None:
    """Mark, then wipe. Raises OSError; when it is called again it goes on."""
    (home / MARKER).parent.mkdir(parents=True, exist_ok=True)
    write_durably(home / MARKER, b"state and blocks here are incomplete: they are being fetched from peers\n", 0o644)
    for path in sorted((home / "data").glob("*")):
        if path.name != KEPT:
            _remove(path)
    for name in ("state", "snapshots", PLACE):
        _remove(home / name)
    (home / CHUNKS).mkdir(parents=True)
    write_validator_key(home / KEY)
    write_durably(home / SIGNED, b'{"height": "0", "round": 0, "step": 0}', 0o600)


def end(home: Path) -> None:
    """The directory is whole again. Raises OSError."""
    (home / MARKER).unlink(missing_ok=True)
    folder = os.open((home / MARKER).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Steps:
    """Whether a restore goes on. look: a number that changes with each step; clock: seconds."""

    def __init__(self, look: Callable[[], object], clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._seen, self._moved = look(), clock()

    def silent(self) -> bool:
        """No step for SILENT_S."""
        seen, now = self._look(), self._clock()
        if seen != self._seen:
            self._seen, self._moved = seen, now
        return now - self._moved > SILENT_S


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
