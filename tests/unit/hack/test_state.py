"""The record of a cluster survives any crash, and `down` removes nothing but the cluster's own files."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_cluster import state as module
from local_cluster.processes import Process
from local_cluster.state import ClusterError, State, decode, encode, load, locked, remove_data

names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1)
processes = st.builds(Process, st.integers(1, 2**22), st.integers(0, 2**60))
states = st.builds(
    State,
    st.just(Path("/x")),
    st.integers(0, 64),
    st.dictionaries(names, processes),
)


@given(states)
def test_a_record_reads_back_as_it_was(state: State) -> None:
    assert decode(state.directory, encode(state)) == state


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1, "nodes": "many"}'])
def test_a_damaged_record_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ClusterError, match=r"state\.json is not a cluster record .*remove the file"):
        decode(Path("/x"), text)


def test_no_record_is_an_empty_cluster(tmp_path: Path) -> None:
    assert load(tmp_path) == State(tmp_path)


def test_saving_replaces_the_record_in_one_step(tmp_path: Path) -> None:
    state = State(tmp_path, nodes=1)
    state.save()
    first = (tmp_path / "state.json").stat().st_ino
    state.nodes = 3
    state.save()
    assert load(tmp_path).nodes == 3
    assert (tmp_path / "state.json").stat().st_ino != first
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_second_command_waits_and_then_says_what_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0)
    with (
        locked(tmp_path),
        pytest.raises(ClusterError, match="another command has held"),
        locked(tmp_path),
    ):
        pytest.fail("two commands held one cluster")


def test_a_lock_on_a_removed_file_does_not_count(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / ".lock").unlink()
        with locked(tmp_path), (tmp_path / ".lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_removing_the_data_spares_other_files(tmp_path: Path) -> None:
    State(tmp_path).save()
    (tmp_path / "machines" / "node-1").mkdir(parents=True)
    mine = tmp_path / "thesis.tex"
    mine.write_text("years of work")
    remove_data(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]
    mine.unlink()
    remove_data(tmp_path)
    assert not tmp_path.exists()
