"""When the machine has room for filled memory, and when it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypermesh_agent.enforcement.cgroups import Controller
from hypermesh_agent.memory.room import FLOOR_BYTES, Room, look

GIB, MIB = 1 << 30, 1 << 20


def machine(tmp_path: Path, available: int, full: str = "0.00", total: int = 4 * GIB) -> Path:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "meminfo").write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\nX: 7\n")
    pressure = f"some avg10=90.00 avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=1\n"
    (tmp_path / "pressure" / "memory").write_text(pressure)
    return tmp_path


def test_the_floor_is_kept(tmp_path: Path) -> None:
    room = look(Controller(tmp_path / "none", 2), machine(tmp_path, GIB))
    assert room == Room(GIB - FLOOR_BYTES, FLOOR_BYTES, stalled=False)
    assert room.short() == 0
    assert room.takes(512 * MIB)
    assert not room.takes(GIB - FLOOR_BYTES)


def test_a_large_machine_has_a_larger_floor(tmp_path: Path) -> None:
    room = look(Controller(tmp_path / "none", 2), machine(tmp_path, GIB, total=100 * GIB))
    assert room.floor == 5 * GIB
    assert room.short() == 4 * GIB


def test_processes_that_wait_for_memory_come_first(tmp_path: Path) -> None:
    room = look(Controller(tmp_path / "none", 2), machine(tmp_path, 3 * GIB, full="7.50"))
    assert room.stalled
    assert room.short() > 0
    assert not room.takes(1)


def test_a_kernel_without_pressure_accounts_is_believed_by_its_available_memory(tmp_path: Path) -> None:
    proc = machine(tmp_path, GIB)
    (proc / "pressure" / "memory").unlink()
    assert not look(Controller(tmp_path / "none", 2), proc).stalled


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_a_group_above_counts_less_what_its_files_take(tmp_path: Path, version: int) -> None:
    above = tmp_path / "group" / "node"
    ours = above / "hypermesh"
    ours.mkdir(parents=True)
    limit, usage = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    prefix = "total_" if version == 1 else ""
    (above / limit).write_text(f"{GIB}\n")
    (above / usage).write_text(f"{GIB - 64 * MIB}\n")
    (above / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {32 * MIB}\n{prefix}active_file {32 * MIB}\n")
    (ours / limit).write_text("max\n" if version == 2 else f"{(1 << 63) - 4096}\n")
    (ours / usage).write_text("0\n")
    (ours / "memory.stat").write_text("anon 5\n")
    room = look(Controller(ours, version), machine(tmp_path, 3 * GIB))
    assert room.spare == 128 * MIB - FLOOR_BYTES
    assert room.short() == FLOOR_BYTES - 128 * MIB
