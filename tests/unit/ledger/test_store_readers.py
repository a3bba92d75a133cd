"""Readers of the state in other processes: one that is killed costs nothing for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hypermesh_ledger import history
from hypermesh_ledger.store import Store

READING = """
import pathlib, sys, time
from hypermesh_ledger.store import look
with look(pathlib.Path(sys.argv[1])) as begin:
    state = begin()
    print(state.head.height, flush=True)
    time.sleep(600)
"""


def test_the_pages_of_a_backup_that_was_killed_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WINDOW", 5)
    store, height = Store(tmp_path), 0

    def blocks(count: int) -> int:
        """Commit as many; the size of the file then."""
        nonlocal height
        for _ in range(count):
            height += 1
            prepared = store.prepare(height, height, {b"k%d" % number: os.urandom(20_000) for number in range(10)})
            store.commit(prepared)
            store.advance(prepared)
        return (tmp_path / "data.mdb").stat().st_size

    before = blocks(40)
    command = [sys.executable, "-P", "-c", READING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert int(reader.stdout.readline()) == height
        reader.kill()
    assert blocks(150) < 2 * before
    store.close()
