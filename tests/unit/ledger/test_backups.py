"""What a backup holds, and which key a restored validator may sign with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypermesh_ledger import backups, holding, home, restoring
from hypermesh_ledger.archives import SUMS, ArchiveRefused, Progress
from hypermesh_ledger.holding import NotHeld, held
from hypermesh_ledger.restoring import RestoreRefused, restore
from hypermesh_ledger.store import Store
from hypermesh_ledger.supervisor import sole

from ...builders import TrustRoot
from .test_validators import Chain
from .world import CHAIN

KEY, SIGNED = Path("config/priv_validator_key.json"), Path("data/priv_validator_state.json")
VOTES = Path("data/cs.wal/wal")
TELL = Progress("test")


def quiet(_: int) -> None:
    """Says nothing."""


def directory(path: Path, chain: Chain) -> Path:
    """A ledger's directory with the chain's state; of CometBFT's files only those that the ledger itself reads."""
    home.prepare(path, CHAIN, chain.genesis)
    (path / "config" / "falcon_key").write_bytes(b"falcon")
    (path / SIGNED).write_text('{"height": "9", "round": 0, "step": 3}')
    (path / VOTES).parent.mkdir()
    (path / VOTES).write_bytes(b"votes")
    (path / "data" / "blockstore.db").mkdir()
    (path / "data" / "blockstore.db" / "000001.ldb").write_bytes(b"blocks")
    (path / "data" / "blockstore.db" / "LOCK").write_bytes(b"")
    store = Store(path / "state")
    prepared = store.prepare(chain.height, chain.now_ms, dict(chain.state.entries))
    store.commit(prepared)
    store.close()
    return path


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory, root: TrustRoot) -> Path:
    chain = Chain(root)
    chain.next()
    return directory(tmp_path_factory.mktemp("lone"), chain)


@pytest.fixture(scope="module")
def one_of_four(tmp_path_factory: pytest.TempPathFactory, root: TrustRoot) -> Path:
    chain = Chain(root)
    chain.join(0, 1, 2, 3)
    return directory(tmp_path_factory.mktemp("four"), chain)


@pytest.fixture
def cometbft(one_of_four: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process where CometBFT would be, with threads of its own; it only waits."""
    script = one_of_four / "run" / "start"
    script.write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n")
    with script.open("a") as file:
        file.write("print(1, flush=True); time.sleep(600)\n")
    command = [sys.executable, "start", str(script)]
    (one_of_four / "start").write_text(script.read_text())
    process = subprocess.Popen(command, cwd=one_of_four, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def backed_up(path: Path) -> bytes:
    out = io.BytesIO()
    about, size = backups.write(path, out, TELL)
    assert (about.chain_id, size > 0) == (CHAIN, True)
    return out.getvalue()


def kept(before: Path, after: Path) -> bool:
    """Whether the key is the same; if not, the new one has signed nothing."""
    same = (before / KEY).read_bytes() == (after / KEY).read_bytes()
    signed = json.loads((after / SIGNED).read_text())
    assert signed["height"] == ("9" if same else "0")
    assert (after / KEY).stat().st_mode & 0o777 == 0o600
    return same


def test_a_lone_validator_keeps_its_key(lone: Path, tmp_path: Path) -> None:
    said = restore(tmp_path, io.BytesIO(backed_up(lone)), False, False, quiet)
    assert "is lost" in said
    assert kept(lone, tmp_path)
    assert (tmp_path / "config" / "falcon_key").read_bytes() == b"falcon"
    assert (tmp_path / "data" / "blockstore.db" / "000001.ldb").read_bytes() == b"blocks"
    assert not (tmp_path / "data" / "blockstore.db" / "LOCK").exists()
    assert not (tmp_path / home.RESTORING).exists()
    with pytest.raises(RestoreRefused, match="not empty"):
        restore(tmp_path, io.BytesIO(backed_up(lone)), False, False, quiet)


def test_who_knows_others_that_sign_does_not_sign_alone(lone: Path, one_of_four: Path, tmp_path: Path) -> None:
    assert home.alone(lone)
    assert not home.alone(one_of_four)
    restore(tmp_path, io.BytesIO(backed_up(lone)), False, False, quiet)
    assert home.alone(tmp_path)
    (tmp_path / KEY).unlink()
    home.new_validator(tmp_path)
    assert not home.alone(tmp_path), "its key is not the one that signs"


@pytest.mark.parametrize("name", ["config/genesis.json~", "config/an old genesis.json", "data/#x#"])
def test_what_an_editor_has_left_makes_no_backup_that_is_refused(lone: Path, tmp_path: Path, name: str) -> None:
    (lone / name).write_text("not ours")
    try:
        restore(tmp_path, io.BytesIO(backed_up(lone)), False, False, quiet)
    finally:
        (lone / name).unlink()
    assert kept(lone, tmp_path)
    assert not (tmp_path / name).exists()


def test_one_of_a_set_gets_a_new_key_and_keeps_the_one_that_holds_its_seat(one_of_four: Path, tmp_path: Path) -> None:
    said = restore(tmp_path, io.BytesIO(backed_up(one_of_four)), False, False, quiet)
    assert "new consensus key" in said
    assert not kept(one_of_four, tmp_path)
    assert (tmp_path / "config" / "falcon_key").read_bytes() == b"falcon"


def test_a_key_that_may_have_signed_since_is_kept_only_when_nobody_goes_on(
    one_of_four: Path, tmp_path: Path, cometbft: subprocess.Popen[bytes]
) -> None:
    with sole(one_of_four):
        running = backed_up(one_of_four)
    assert holding._stopped(cometbft.pid) is False
    with pytest.raises(RestoreRefused, match="two of one height"):
        restore(tmp_path, io.BytesIO(running), True, False, quiet)
    assert not (tmp_path / "config").exists()
    assert "never starts again" in restore(tmp_path, io.BytesIO(running), True, True, quiet)
    assert kept(one_of_four, tmp_path)
    assert not (tmp_path / VOTES).exists(), "votes of others that they may now contradict"
    cometbft.kill()
    cometbft.wait()
    moved = tmp_path / "moved"
    assert "never starts again" in restore(moved, io.BytesIO(backed_up(one_of_four)), True, False, quiet)
    assert kept(one_of_four, moved)
    assert (moved / VOTES).read_bytes() == b"votes"


def test_what_is_held_stands_still_and_goes_on(one_of_four: Path, cometbft: subprocess.Popen[bytes]) -> None:
    assert holding.cometbft(one_of_four) == cometbft.pid
    with held(one_of_four):
        assert holding._stopped(cometbft.pid)
        with pytest.raises(NotHeld, match="Another backup"), held(one_of_four):
            pass
        assert holding._stopped(cometbft.pid), "the second has let it go"
    assert not holding._stopped(cometbft.pid)
    with pytest.raises(NotHeld, match="ended meanwhile"), held(one_of_four):
        end(cometbft)
    with pytest.raises(NotHeld, match="No CometBFT"), held(one_of_four):
        pass


def members(data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(each, (tar.extractfile(each) or io.BytesIO()).read()) for each in tar]


def packed(found: list[tuple[tarfile.TarInfo, bytes]]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in found:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def test_an_archive_that_was_changed_is_refused(lone: Path, tmp_path: Path) -> None:
    good = members(backed_up(lone))
    for index, (member, content) in enumerate(good):
        changed = bytes([content[0] ^ 1]) + content[1:] if content else b"x"
        for found in ([*good[:index], (member, changed), *good[index + 1 :]], [*good[:index], *good[index + 1 :]]):
            with pytest.raises(ArchiveRefused):
                restore(tmp_path, packed(found), False, False, quiet)
    for data in (b"", b"\0" * 10_240, b"garbage" * 5_000):
        with pytest.raises(ArchiveRefused):
            restore(tmp_path, io.BytesIO(data), False, False, quiet)
    assert not any((tmp_path / part).exists() for part in restoring.PARTS)


@pytest.mark.parametrize("name", ["../out", "/out", "config/../../out", "data/.x", "other/x", "config", f"x/{SUMS}"])
def test_no_name_leads_out_of_the_directory(lone: Path, tmp_path: Path, name: str) -> None:
    for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        with pytest.raises(ArchiveRefused, match="not one of its files"):
            restore(tmp_path / "into", packed([(member, b"x")]), False, False, quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into"]
