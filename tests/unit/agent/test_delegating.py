"""What a person mistypes, or where nothing answers: one sentence, and nothing said to the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypermesh import falcon
from hypermesh_agent.delegating import Desk, Unclear, share
from hypermesh_agent.main import main
from hypermesh_agent.submitting import Submitter
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror


@pytest.mark.parametrize("days", ["nan", "inf", "0", "-1", "367", "soon"])
def test_days_that_no_delegation_can_have(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["delegate", "FRIEND", "--right", "release", "--days", days])
    assert caught.value.code == 2
    assert "--days" in capsys.readouterr().err


async def test_share_with_nothing_to_say_says_nothing() -> None:
    client = LedgerClient("[::1]:1", b"")
    keypair = falcon.generate()
    mirror = Mirror(client)
    with pytest.raises(Unclear, match="--pause, --open or --price"):
        await share(Desk(mirror, Submitter(client, mirror, keypair), keypair.key_id()), "asset", None, None)
    await client.close()


def test_outside_of_a_cluster_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["revoke", "FRIEND", "--state", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())
