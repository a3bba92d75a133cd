"""How to reach and convince an API server: from the pod we run in, or from a kubeconfig file.

Data flow: files (mounted service account, kubeconfig) → `Connection` (URL, TLS context, credential).
Credentials are asked for at each request and read again when they rotate: a projected token changes about
every 50 minutes, and a client that keeps the first one dies an hour after its start.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The client can't be configured: the message names the file or variable and what to do."""


class Credential(Protocol):
    """Gives the bearer token for the next request, or None when the TLS client certificate is all."""

    async def token(self, *, renew: bool = False) -> str | None:
        """The token; `renew` says the last one was refused (401)."""


class NoCredential:
    """The TLS client certificate identifies us."""

    async def token(self, *, renew: bool = False) -> str | None:
        return None


@dataclass(slots=True)
class StaticToken:
    """A token written into a kubeconfig."""

    value: str = field(repr=False)

    async def token(self, *, renew: bool = False) -> str | None:
        return self.value


@dataclass(slots=True)
class FileToken:
    """A token in a file that somebody else rotates (kubelet); read again when it is older than `max_age` s."""

    path: Path
    max_age: float = 10.0
    _value: str = field(default="", repr=False)
    _read_at: float = float("-inf")

    async def token(self, *, renew: bool = False) -> str | None:
        if renew or time.monotonic() - self._read_at > self.max_age:
            try:
                self._value = self.path.read_text().strip()  # a few hundred bytes on tmpfs
            except OSError as error:
                if not self._value:
                    raise ConfigError(
                        f"service account token {self.path}: {error.strerror}. "
                        "Mount it (automountServiceAccountToken) or use a kubeconfig."
                    ) from error
            self._read_at = time.monotonic()
        return self._value


@dataclass(slots=True)
class ExecToken:
    """A credential plugin named in the kubeconfig (client.authentication.k8s.io/v1), as managed clusters use."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_version: str = "client.authentication.k8s.io/v1"
    _value: str = field(default="", repr=False)
    _expires: float = 0.0

    async def token(self, *, renew: bool = False) -> str | None:
        if self._value and not renew and time.time() < self._expires:
            return self._value
        info = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environment = {**os.environ, **self.environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            process = await asyncio.create_subprocess_exec(
                self.command, *self.arguments, env=environment, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(process.communicate(), 60)
            status: dict[str, Any] = json.loads(output)["status"]
            self._value = str(status["token"])
        except (OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"credential plugin {self.command!r} of the kubeconfig gave no token ({type(error).__name__}). "
                "Run it by hand, or log in to the cluster again."
            ) from error
        expires = status.get("expirationTimestamp")
        self._expires = datetime.fromisoformat(str(expires)).timestamp() - 30 if expires else float("inf")
        return self._value


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything needed to speak to one API server."""

    server: str
    tls: ssl.SSLContext | None
    credential: Credential
    namespace: str = "default"
    context: str = ""


def in_cluster(root: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Connection:
    """The connection of a pod, from its mounted service account and KUBERNETES_SERVICE_HOST/PORT."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("KUBERNETES_SERVICE_HOST isn't set: this isn't a pod. Use a kubeconfig (KUBECONFIG).")
    authority = root / "ca.crt"
    try:
        tls = ssl.create_default_context(cadata=authority.read_text())
        namespace_file = root / "namespace"
        namespace = namespace_file.read_text().strip() if namespace_file.exists() else "default"
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{authority}: {error}. Mount the service account (automountServiceAccountToken).") from error
    bracketed = f"[{host}]" if ":" in host else host
    return Connection(f"https://{bracketed}:{port}", tls, FileToken(root / "token"), namespace)


def kubeconfig_path(environment: Mapping[str, str] = os.environ) -> Path:
    """First existing file of KUBECONFIG, else ~/.kube/config (existing or not)."""
    listed = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return next((path for path in listed if path.exists()), listed[0] if listed else Path.home() / ".kube" / "config")


def from_kubeconfig(path: Path | None = None, context: str | None = None) -> Connection:
    """The connection of a kubeconfig's context (default: its current one). Raises ConfigError."""
    import yaml  # pods never need it: 3 MB of memory

    path = path or kubeconfig_path()
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"kubeconfig {path}: {error}. Set KUBECONFIG to a readable kubeconfig.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"kubeconfig {path}: not a mapping. Set KUBECONFIG to a kubeconfig.")
    name = context or str(config.get("current-context") or "")
    chosen = _named(config, "contexts", "context", name, path)
    cluster = _named(config, "clusters", "cluster", str(chosen.get("cluster", "")), path)
    user = _named(config, "users", "user", str(chosen["user"]), path) if chosen.get("user") else {}
    server = str(cluster.get("server", "")).rstrip("/")
    if not server:
        raise ConfigError(f"kubeconfig {path}: cluster {chosen.get('cluster')!r} has no server.")
    try:
        tls = _tls(cluster, user, path.parent) if server.startswith("https:") else None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, binascii.Error a ValueError
        raise ConfigError(f"kubeconfig {path}, context {name!r}: unusable TLS material: {error}.") from error
    return Connection(server, tls, _credential(user, path.parent), str(chosen.get("namespace") or "default"), name)


def _named(config: Mapping[str, Any], section: str, key: str, name: str, path: Path) -> dict[str, Any]:
    entries = config.get(section) or []
    for entry in entries:
        if entry.get("name") == name:
            return dict(entry.get(key) or {})
    known = ", ".join(sorted(str(entry.get("name")) for entry in entries)) or "none"
    raise ConfigError(f"kubeconfig {path}: no {key} named {name!r} (there are: {known}). Choose one with --context.")


def _data(section: Mapping[str, Any], key: str, base: Path) -> bytes | None:
    """Inline `<key>-data` (base64) or the file `<key>` relative to the kubeconfig."""
    if inline := section.get(f"{key}-data"):
        return base64.b64decode(inline)
    return (base / section[key]).read_bytes() if section.get(key) else None


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], base: Path) -> ssl.SSLContext:
    authority = _data(cluster, "certificate-authority", base)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate, key = _data(user, "client-certificate", base), _data(user, "client-key", base)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as pem:  # mode 0600; OpenSSL only loads pairs from files
            pem.write(certificate + b"\n" + key)
            pem.flush()
            tls.load_cert_chain(pem.name)
    return tls


def _credential(user: Mapping[str, Any], base: Path) -> Credential:
    if token_file := user.get("tokenFile"):
        return FileToken(base / token_file)
    if token := user.get("token"):
        return StaticToken(str(token))
    if plugin := user.get("exec"):
        return ExecToken(
            str(plugin["command"]),
            tuple(str(argument) for argument in plugin.get("args") or ()),
            {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()},
            str(plugin.get("apiVersion", "client.authentication.k8s.io/v1")),
        )
    return NoCredential()
