"""The ledger's directory: made once, whole at every moment, and no longer written once it is there."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.enrolment import EnrolmentRefused, TrustChainUnavailable
from hypermesh_ledger import errors, home, membership
from hypermesh_ledger.genesis import chain_id_of

GENESIS = ledger_pb2.Genesis(root_public_key=b"root", proofs=DEMO)
CHAIN = "hypermesh-test"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("home")
    home.prepare(directory, CHAIN, GENESIS)
    return directory


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def test_the_key_is_private_and_nothing_is_left_over(made: Path) -> None:
    assert (made / "config" / "priv_validator_key.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (made / "config").iterdir()) == [
        "config.toml",
        "genesis.json",
        "priv_validator_key.json",
    ]


def test_a_second_start_writes_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home, "write_durably", full)
    home.prepare(copy, CHAIN, GENESIS)
    (copy / "config" / "config.toml").write_text("changed")
    with pytest.raises(errors.HomeUnusable, match="free space") as caught:
        home.prepare(copy, CHAIN, GENESIS)
    assert not isinstance(caught.value, errors.Unrunnable)
    monkeypatch.undo()
    home.prepare(copy, CHAIN, GENESIS)
    assert (copy / "config" / "config.toml").read_text() == home.CONFIG


def test_a_lost_key_is_not_replaced(copy: Path) -> None:
    key = copy / "config" / "priv_validator_key.json"
    key.unlink()
    with pytest.raises(errors.HomeMismatch, match=r"is missing.*Restore it from a backup"):
        home.prepare(copy, CHAIN, GENESIS)
    assert not key.exists()


def test_a_foreign_key_is_refused(copy: Path, tmp_path: Path) -> None:
    key = copy / "config" / "priv_validator_key.json"
    document = json.loads(key.read_text())
    document["pub_key"]["value"] = "AAAA"
    key.write_text(json.dumps(document))
    with pytest.raises(errors.HomeMismatch, match="not the key of the validator"):
        home.prepare(copy, CHAIN, GENESIS)


def test_every_chain_has_an_id_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first = home.prepare(tmp_path / "first", None, GENESIS)
    assert first.startswith(chain_id_of(GENESIS.root_public_key) + "-")
    assert home.prepare(tmp_path / "first", None, GENESIS) == first
    assert home.prepare(tmp_path / "second", None, GENESIS) != first


def test_the_chain_of_another_federation_is_refused(tmp_path: Path) -> None:
    home.prepare(tmp_path, None, GENESIS)
    other = ledger_pb2.Genesis(root_public_key=b"other", proofs=DEMO)
    with pytest.raises(errors.HomeMismatch, match=f"but the federation's is {chain_id_of(b'other')}"):
        home.prepare(tmp_path, None, other)
    with pytest.raises(errors.HomeMismatch, match=f"but the federation's is {CHAIN}"):
        home.prepare(tmp_path, CHAIN, GENESIS)


@pytest.mark.parametrize("text", ["[]", "{}", '{"chain_id": "hypermesh-test", "validators": []}'])
def test_damaged_files_are_named(copy: Path, text: str) -> None:
    (copy / "config" / "genesis.json").write_text(text)
    with pytest.raises(errors.HomeMismatch):
        home.prepare(copy, CHAIN, GENESIS)


@pytest.mark.parametrize(
    ("cause", "lasting"),
    [
        (TrustChainUnavailable("away"), False),
        (OSError("token"), False),
        (EnrolmentRefused("RoleForbidden", "no"), True),
    ],
)
async def test_only_a_refusal_by_trustchain_is_lasting(
    cause: Exception, lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        raise cause

    monkeypatch.setattr(membership.Kube, "auto", fails)
    expected = errors.TrustUnusable if lasting else errors.TrustUnavailable
    with pytest.raises(expected) as caught:
        await membership.join(membership.TrustChain("hypermesh-system", "[::1]:1", tmp_path / "token"))
    assert isinstance(caught.value, errors.Unrunnable) is lasting


def test_with_peers_cometbft_listens(copy: Path) -> None:
    network = home.Network("[fd00::1]:26656", "aa@[fd00::2]:26656", None)
    home.prepare(copy, CHAIN, GENESIS, network)
    text = tomllib.loads((copy / "config" / "config.toml").read_text())
    assert text["p2p"]["laddr"] == "tcp://[fd00::1]:26656"
    assert text["p2p"]["persistent_peers"] == "aa@[fd00::2]:26656"
    assert text["mempool"]["broadcast"] is False, "peers are told by streams of ours"
    assert text["rpc"]["unsafe"] is True, "it can be told whom to dial"
    home.prepare(copy, CHAIN, GENESIS)
    assert (copy / "config" / "config.toml").read_text() == home.CONFIG
    alone = tomllib.loads(home.CONFIG)
    assert "unsafe" not in alone["rpc"]
    assert (alone["p2p"]["laddr"], alone["mempool"]["broadcast"]) == ("tcp://[::1]:0", False)


def test_a_joined_home_has_the_chain_of_its_peers_and_its_own_key(made: Path, tmp_path: Path) -> None:
    document = json.loads((made / "config" / "genesis.json").read_text())
    network = home.Network("[fd00::1]:26656", "", document)
    assert home.prepare(tmp_path, CHAIN, GENESIS, network) == CHAIN
    assert json.loads((tmp_path / "config" / "genesis.json").read_text()) == document
    own = json.loads((tmp_path / "config" / "priv_validator_key.json").read_text())
    assert own["pub_key"] != document["validators"][0]["pub_key"]
    assert home.prepare(tmp_path, CHAIN, GENESIS, home.Network("[fd00::1]:26656", "", None)) == CHAIN
    with pytest.raises(errors.HomeMismatch, match="needs --peers"):
        home.prepare(tmp_path, CHAIN, GENESIS)
