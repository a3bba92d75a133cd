"""The form of a backup: a tar of plain files, each with its SHA-256, so that half a backup is none.

    backup.json  config/...  data/...  state/data.mdb.00000 ...  SHA256

state/ is LMDB's own copy of one height, in pieces, so that neither side needs room for it but where it ends. Every tar
program reads it; the sums are those of `sha256sum -c SHA256`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

FORMAT: Final = "hypermesh-ledger-backup/1"
ABOUT: Final = "backup.json"
SUMS: Final = "SHA256"
STATE: Final = "state/data.mdb"
PIECE_BYTES: Final = 16 << 20
BLOCK_BYTES: Final = 1 << 20
TELL_S: Final = 2.0
LONGEST_TEXT: Final = 64 << 20
NAME: Final = re.compile(r"(config|data|state)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
"""Of the files that are restored; others, such as editors' copies, are not backed up."""

Tell = Callable[[int], None]
"""Called with the number of bytes done so far."""


def add_home(parser: argparse.ArgumentParser) -> None:
    """--home, as `run` has it."""
    default = Path(os.environ.get("HYPERMESH_LEDGER_HOME", "/var/lib/hypermesh-ledger"))
    parser.add_argument("--home", type=Path, default=default, help="the ledger's directory (HYPERMESH_LEDGER_HOME)")


class Progress:
    """Says every few seconds how far it is, so that a long copy is not taken for a dead one."""

    def __init__(self, deed: str) -> None:
        self._deed = deed
        self._told = time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            print(f"{self._deed}: {done >> 20} MiB", file=sys.stderr, flush=True)  # noqa: T201  # its output


class ArchiveRefused(Exception):
    """Not a whole backup of ours, and why."""


class Writer:
    """One backup, written from its beginning to its end."""

    def __init__(self, out: IO[bytes], tell: Tell) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `close` ends it
        self._tell = tell
        self._sums: list[str] = []
        self.bytes = 0

    def add(self, name: str, content: bytes) -> None:
        """A file from memory."""
        self._add(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, path: Path) -> None:
        """A file that does not change meanwhile. Raises OSError."""
        with path.open("rb") as file:
            self._add(name, file, path.stat().st_size)

    def _add(self, name: str, content: IO[bytes], size: int) -> None:
        hashed = _Hashed(content)
        self._tar.addfile(_member(name, size), hashed)
        self._sums.append(f"{hashed.digest.hexdigest()}  {name}\n")
        self.bytes += size
        self._tell(self.bytes)

    def close(self) -> None:
        """Write the sums; without them nothing is restored."""
        text = "".join(self._sums).encode()
        self._tar.addfile(_member(SUMS, len(text)), io.BytesIO(text))
        self._tar.close()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


class _Hashed:
    """Reads through."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self.digest.update(data)
        return data


def unpack(source: IO[bytes], directory: Path, tell: Tell) -> bytes:
    """Write all files below an empty directory; the content of backup.json. Raises ArchiveRefused, OSError."""
    try:
        return _unpack(source, directory, tell)
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveRefused(f"it is cut off, or no tar of ours: {error}") from error


def _unpack(source: IO[bytes], directory: Path, tell: Tell) -> bytes:
    sums: dict[str, str] = {}
    about: bytes | None = None
    done, listed = 0, ""
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.name in sums or listed:
                raise ArchiveRefused(f"it holds {member.name!r}, which is not one of its files")
            if member.name in (ABOUT, SUMS):
                text = content.read(LONGEST_TEXT)
                if member.name == SUMS:
                    listed = text.decode("ascii", "replace")
                    continue
                about = text
                sums[member.name] = hashlib.sha256(text).hexdigest()
                continue
            if not NAME.fullmatch(member.name):
                raise ArchiveRefused(f"it holds {member.name!r}, which is not one of its files")
            sums[member.name] = _extract(member.name, content, directory)
            done += member.size
            tell(done)
    if listed != "".join(f"{digest}  {name}\n" for name, digest in sums.items()):
        raise ArchiveRefused("its files are not those of its sums: it is cut off or was changed")
    if about is None:
        raise ArchiveRefused(f"it has no {ABOUT}")
    return about


def _extract(name: str, content: IO[bytes], directory: Path) -> str:
    """Pieces of the state go behind each other."""
    piece = name.startswith(f"{STATE}.")
    path = directory / (STATE if piece else name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest = hashlib.sha256()
    with path.open("ab" if piece else "xb") as file:
        path.chmod(0o600)
        while data := content.read(BLOCK_BYTES):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()
