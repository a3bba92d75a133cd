"""The survey: one failing probe costs its own kind only, and is told once."""

from __future__ import annotations

import logging
from pathlib import Path

import machine_trees as machines
import pytest

from hypermesh_agent.agent import make_pool
from hypermesh_agent.hardware import Kind, ProbeFailed
from hypermesh_agent.probes import pool
from hypermesh_agent.readings import Tree
from hypermesh_agent.survey import Survey, SurveyConfig, machine_id, read_gpus

FILES_ONLY = frozenset({Kind.CPU, Kind.MEMORY, Kind.STORAGE})


async def test_a_broken_file_leaves_the_other_kinds_and_what_was_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = machines.plant(tmp_path, machines.two_sockets(), machines.disk("sda", 10, "pci0000:00/x"))
    survey = Survey(SurveyConfig(), tree, lambda: {"sda": {}})
    before = await survey.run(FILES_ONLY)
    assert before.failures == {}
    (tmp_path / "proc/meminfo").write_text("nonsense\n")
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-7\n")
    after = await survey.run(FILES_ONLY)
    again = await survey.run(FILES_ONLY)
    assert set(after.failures) == {Kind.MEMORY}
    assert after.unknown == {Kind.MEMORY, Kind.GPU}
    assert after.of(Kind.MEMORY) == before.of(Kind.MEMORY)
    assert sum(item.size for item in after.of(Kind.CPU)) == 8000
    assert len(after.of(Kind.STORAGE)) == 1
    assert again.failures == after.failures
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


async def test_a_probe_that_works_again_is_no_failure_any_more(tmp_path: Path) -> None:
    tree = machines.plant(tmp_path, machines.two_sockets())
    (tmp_path / "proc/meminfo").rename(tmp_path / "proc/away")
    survey = Survey(SurveyConfig(), tree, dict)
    assert set((await survey.run(FILES_ONLY)).failures) == {Kind.MEMORY}
    (tmp_path / "proc/away").rename(tmp_path / "proc/meminfo")
    assert (await survey.run(FILES_ONLY)).failures == {}


async def test_an_enumeration_that_raises_is_a_storage_failure(tmp_path: Path) -> None:
    def broken() -> dict[str, dict[str, str]]:
        raise OSError(5, "udev is not there")

    survey = Survey(SurveyConfig(), machines.plant(tmp_path, machines.two_sockets()), broken)
    inventory = await survey.run(FILES_ONLY)
    assert set(inventory.failures) == {Kind.STORAGE}
    assert inventory.of(Kind.CPU)


async def test_only_the_asked_kinds_are_looked_at(tmp_path: Path) -> None:
    survey = Survey(SurveyConfig(), machines.plant(tmp_path, machines.two_sockets()), dict)
    inventory = await survey.run({Kind.CPU})
    assert {item.kind for item in inventory.hardware} == {Kind.CPU}
    assert inventory.unknown == {Kind.GPU, Kind.MEMORY, Kind.STORAGE}


async def test_no_gpu_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With this machine's own drivers; where there is a GPU, nothing is said."""
    caplog.set_level(logging.INFO)
    survey = Survey(SurveyConfig(), machines.plant(tmp_path, machines.two_sockets()), dict)
    found = (await survey.run({Kind.GPU})).of(Kind.GPU)
    await survey.run({Kind.GPU})
    said = [record.message for record in caplog.records if "no GPU" in record.message]
    assert len(said) == (0 if found else 1)


async def test_a_driver_that_hangs_is_given_up() -> None:
    with pytest.raises(ProbeFailed, match="did not answer within 0 s"):
        await read_gpus(0.001)


def test_machine_id_is_derived_and_has_substitutes(tmp_path: Path) -> None:
    tree = machines.plant(tmp_path, {"/etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n"})
    first = machine_id(tree)
    assert len(first) == 16
    assert first not in "3d1219c7c4c5404aaa1f6d2a48adfda4"
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    assert machine_id(tree) not in (first, "")
    machines.plant(tmp_path, {"/proc/1/root/etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n"})
    assert machine_id(tree) == first
    assert machine_id(Tree(tmp_path / "nothing")) != first


def test_the_pool_is_there_before_the_first_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pool(tmp_path / "state" / "pool")
    found = pool.read(tmp_path / "state" / "pool")
    assert found is not None
    assert found.available > 0
    (tmp_path / "file").touch()
    make_pool(tmp_path / "file" / "pool")
    assert "Not a directory; no storage is given" in caplog.text
    make_pool(None)
