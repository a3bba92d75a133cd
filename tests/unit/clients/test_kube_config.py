"""Kubeconfigs and service accounts: what is found, and what is said when it isn't."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hypermesh_clients.kube_config import (
    ConfigError,
    ExecToken,
    FileToken,
    NoCredential,
    StaticToken,
    from_kubeconfig,
    in_cluster,
    kubeconfig_path,
)


def kubeconfig(path: Path, *, user: dict[str, Any] | None = None, server: str = "http://[::1]:8080") -> Path:
    content = {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
            {"name": "two", "context": {"cluster": "missing"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


async def test_current_context(tmp_path: Path) -> None:
    connection = from_kubeconfig(kubeconfig(tmp_path / "config", user={"token": "secret-text"}))
    assert (connection.server, connection.namespace, connection.context) == ("http://[::1]:8080", "team", "one")
    assert await connection.credential.token() == "secret-text"
    assert "secret-text" not in repr(connection)


@pytest.mark.parametrize(
    ("user", "kind"),
    [
        ({}, NoCredential),
        ({"token": "t"}, StaticToken),
        ({"tokenFile": "t"}, FileToken),
        ({"exec": {"command": "x"}}, ExecToken),
    ],
)
def test_credentials(tmp_path: Path, user: dict[str, Any], kind: type) -> None:
    assert isinstance(from_kubeconfig(kubeconfig(tmp_path / "config", user=user)).credential, kind)


def test_errors_name_file_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent: .*Set KUBECONFIG"):
        from_kubeconfig(tmp_path / "absent")
    (tmp_path / "text").write_text("just text")
    with pytest.raises(ConfigError, match="not a mapping"):
        from_kubeconfig(tmp_path / "text")
    config = kubeconfig(tmp_path / "config")
    with pytest.raises(ConfigError, match="no context named 'three' \\(there are: one, two\\)"):
        from_kubeconfig(config, "three")
    with pytest.raises(ConfigError, match="no cluster named 'missing'"):
        from_kubeconfig(config, "two")
    bad = {"client-certificate-data": "bm8=", "client-key-data": "bm8="}
    unusable = kubeconfig(tmp_path / "tls", user=bad, server="https://[::1]:1")
    with pytest.raises(ConfigError, match="unusable TLS material"):
        from_kubeconfig(unusable)


def test_first_existing_file_of_the_variable(tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "config")
    assert kubeconfig_path({"KUBECONFIG": f"{tmp_path / 'absent'}:{config}"}) == config
    assert kubeconfig_path({"KUBECONFIG": f"{tmp_path / 'absent'}"}) == tmp_path / "absent"


def test_a_pod(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigError, match="isn't a pod"):
        in_cluster(tmp_path, {})
    with pytest.raises(ConfigError, match=r"ca\.crt"):
        in_cluster(tmp_path, environment)


async def test_a_token_file_is_read_again_when_old_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    patient, eager = FileToken(file, max_age=3600), FileToken(file, max_age=-1)
    assert [await patient.token(), await eager.token()] == ["one", "one"]
    file.write_text("two\n")
    assert await eager.token() == "two"
    assert await patient.token() == "one"
    assert await patient.token(renew=True) == "two"
    file.unlink()  # in the middle of a rotation: the last one still serves
    assert await eager.token() == "two"
    with pytest.raises(ConfigError, match="Mount it"):
        await FileToken(file).token()


async def test_a_credential_plugin_is_asked_again_after_expiry(tmp_path: Path) -> None:
    calls = tmp_path / "calls"

    def plugin(expires: str | None) -> ExecToken:
        status = {"token": "from-plugin", **({"expirationTimestamp": expires} if expires else {})}
        answer = json.dumps({"kind": "ExecCredential", "status": status})
        script = f"open({str(calls)!r}, 'a').write('x'); print({answer!r})"
        return ExecToken(sys.executable, ("-c", script))

    lasting = plugin("2999-01-01T00:00:00Z")
    assert [await lasting.token(), await lasting.token()] == ["from-plugin"] * 2
    assert calls.read_text() == "x"
    assert await lasting.token(renew=True) == "from-plugin"
    assert calls.read_text() == "xx"
    past = plugin("2001-01-01T00:00:00Z")
    await past.token()
    await past.token()
    assert calls.read_text() == "xxxx"
    with pytest.raises(ConfigError, match="gave no token"):
        await ExecToken(sys.executable, ("-c", "print('{}')")).token()
    with pytest.raises(ConfigError, match="gave no token"):
        await ExecToken("/no/such/plugin").token()
