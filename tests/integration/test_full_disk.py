"""A disk that is really full: the old file stays, and what was half written gives its space back."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypermesh_clients.files import write_durably

SIZE = 64 << 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small", str(mounted)], check=True, timeout=30)
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True, timeout=30)


@pytest.mark.root
def test_a_full_disk_keeps_the_old_file(small: Path) -> None:
    path = small / "file"
    write_durably(path, b"old", 0o600)
    with pytest.raises(OSError, match="No space left") as caught:
        write_durably(path, bytes(2 * SIZE), 0o600)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert list(small.iterdir()) == [path]
    write_durably(path, bytes(SIZE // 2), 0o600)
    assert path.stat().st_size == SIZE // 2
