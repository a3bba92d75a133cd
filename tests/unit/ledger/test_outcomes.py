"""Outcomes beside the state: found by hash, gone with the window, and never part of what is agreed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypermesh.refusals import Reason
from hypermesh_ledger import history, outcomes
from hypermesh_ledger.execution import Result
from hypermesh_ledger.store import Store


def block(store: Store, height: int, *results: Result) -> bytes:
    """Commit one; its app hash."""
    prepared = store.prepare(height, 1_000 * height, {})
    store.commit(prepared, outcomes.row_of(1_000 * height, results))
    store.advance(prepared)
    return bytes(prepared.head.app_hash)


def test_a_result_is_found_with_its_reason_and_changes_no_app_hash(tmp_path: Path) -> None:
    store, bare = Store(tmp_path / "a"), Store(tmp_path / "b")
    told = Result(b"t" * 32, 1, Reason.NoSuchAsset, "None of that id.")
    assert block(store, 1, told, Result(b"u" * 32, 1)) == block(bare, 1)
    block(store, 2)
    found = store.find_outcome(b"t" * 32)
    assert found is not None
    height, row = found
    assert (height, row.time_ms, len(row.outcomes)) == (1, 1_000, 2)
    assert (row.outcomes[0].reason, row.outcomes[0].message) == ("NoSuchAsset", "None of that id.")
    assert row.outcomes[1].reason == ""
    assert store.outcomes(2) is None
    assert store.find_outcome(b"v" * 32) is None
    store.close()
    again = Store(tmp_path / "a")
    assert again.find_outcome(b"u" * 32) == found
    again.close()
    bare.close()


def test_the_newest_of_two_blocks_with_the_same_transaction_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    block(store, 1, Result(b"t" * 32, 1, Reason.EpochWrong, "Early."))
    block(store, 2, Result(b"t" * 32, 2))
    found = store.find_outcome(b"t" * 32)
    assert found is not None
    assert found[0] == 2
    store.close()


def test_a_hash_that_only_appears_within_other_bytes_is_not_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    block(store, 1, Result(b"t" * 32, 1, Reason.Malformed, "x" * 32))
    assert store.find_outcome(b"x" * 32) is None
    store.close()


def test_rows_go_with_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WINDOW", 5)
    store = Store(tmp_path)
    for height in range(1, 12):
        block(store, height, Result(bytes([height]) * 32, height))
    assert store.earliest() == 6
    assert store.find_outcome(bytes([6]) * 32) is None
    kept = store.find_outcome(bytes([7]) * 32)
    assert kept is not None
    assert kept[0] == 7
    store.close()
