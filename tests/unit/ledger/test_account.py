"""`hypermesh-ledger state` says in one sentence why it can't."""

from __future__ import annotations

import argparse

import pytest

from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.trust import TrustNotPublished
from hypermesh_ledger import account, main


@pytest.mark.parametrize(
    "error", [ConfigError("no way"), KubeError("ConfigMap", "no way"), TrustNotPublished("no way"), TimeoutError()]
)
def test_one_sentence_and_exit_1(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(options: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(account, "show", fails)
    assert main.main(["state", "--ledger", "[::1]:7"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "no way" in lines[0] or "[::1]:7" in lines[0]
