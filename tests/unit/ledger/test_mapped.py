"""Pages of the database's file do not stay resident because they were read once."""

from __future__ import annotations

from pathlib import Path

import lmdb

from hypermesh_ledger import mapped

ENTRIES, VALUE = 4_000, 4_000


def of_file(file: Path) -> int:
    """Resident bytes of the file's mapping (proc_pid_smaps(5))."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(file)):
            return next(int(each.split()[1]) << 10 for each in lines if each.startswith("Rss:"))
    raise AssertionError(f"{file} is not mapped")


def test_pages_read_once_are_given_back_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "data.mdb"
    environment = lmdb.open(str(tmp_path), map_size=1 << 30)
    with environment.begin(write=True) as transaction:
        for index in range(ENTRIES):
            transaction.put(index.to_bytes(4, "big"), index.to_bytes(4, "big") * (VALUE // 4))
    with environment.begin() as transaction:
        before = sum(len(value) for _, value in transaction.cursor())
        assert before == ENTRIES * VALUE
        held = of_file(file)
        assert held > ENTRIES * VALUE // 2
        assert mapped.resident() > held
        assert not mapped.trim(file, most=1 << 40)
        assert of_file(file) == held
        assert mapped.trim(file, most=0)
        assert of_file(file) < held // 10
        assert all(value[:4] == key for key, value in transaction.cursor())  # in a transaction that was open meanwhile
    environment.close()


def test_of_a_file_that_is_not_mapped_nothing_is_given_back(tmp_path: Path) -> None:
    assert mapped.trim(tmp_path / "other", most=0)
