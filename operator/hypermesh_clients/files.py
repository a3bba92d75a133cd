"""Files that are whole or not there, whatever happens while they are written.

content -> `.NAME.new` beside the file, synced -> renamed over it -> directory synced (POSIX rename is atomic)
"""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int) -> None:
    """Replaces `path` at once and for good. Raises OSError; then the old file or the new one is there, whole.

    It is the new one when only the directory could not be synced: a power cut may still bring the old one back.
    A process killed in between leaves `.NAME.new` behind, which the next write removes.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # opening it anew would keep its mode
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)  # a full disk needs the space
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
