"""A real API server for the contract tests: etcd and kube-apiserver on ::1, nothing else of a cluster.

`api_server` is shared by a session; `own_api_server` belongs to one test, which may kill and restart it.
Nothing runs controllers: objects stay as they are written, and finalizers are the test's to remove.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BINARIES = Path(__file__).resolve().parents[2] / "build" / "bin"
START_SECONDS = 60


def _free_port() -> int:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        return int(listener.getsockname()[1])


def _name(common: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


class _Authority:
    """A throw-away certificate authority for the server and its administrator."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(_name("contract-tests"), _name("contract-tests"))
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def issue(self, subject: x509.Name, usage: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(subject, self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv6Address("::1")), x509.DNSName("localhost")]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


class ApiServer:
    """etcd + kube-apiserver below `directory`. `kill()` is kill -9 of the API server; `start()` starts it again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self._etcd_client, self._etcd_peer = _free_port(), _free_port(), _free_port()
        self.url = f"https://[::1]:{self.port}"
        self.kubeconfig = directory / "kubeconfig"
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._write_keys()

    def _write_keys(self) -> None:
        authority = _Authority()
        ca = authority.certificate.public_bytes(serialization.Encoding.PEM)
        certificate, key = authority.issue(_name("kube-apiserver"), ExtendedKeyUsageOID.SERVER_AUTH)
        admin, admin_key = authority.issue(_name("admin", "system:masters"), ExtendedKeyUsageOID.CLIENT_AUTH)
        files = {
            "ca.crt": ca,
            "server.crt": certificate,
            "server.key": key,
            "sa.key": _pem(ec.generate_private_key(ec.SECP256R1())),
        }
        for name, content in files.items():
            (self.directory / name).write_bytes(content)
        text = {k: base64.b64encode(v).decode() for k, v in (("ca", ca), ("crt", admin), ("key", admin_key))}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "contract",
            "contexts": [{"name": "contract", "context": {"cluster": "contract", "user": "admin"}}],
            "clusters": [
                {"name": "contract", "cluster": {"server": self.url, "certificate-authority-data": text["ca"]}}
            ],
            "users": [
                {
                    "name": "admin",
                    "user": {"client-certificate-data": text["crt"], "client-key-data": text["key"]},
                }
            ],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.directory / f"{name}.log").open("ab")
        with log:
            return subprocess.Popen([str(BINARIES / name), *arguments], stdout=log, stderr=log)

    def start(self) -> None:
        """Starts what doesn't run and waits until the API server is ready."""
        client, peer = f"http://[::1]:{self._etcd_client}", f"http://[::1]:{self._etcd_peer}"
        if self._etcd is None:
            self._etcd = self._spawn(
                "etcd",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
            )
        at = self.directory
        self._server = self._spawn(
            "kube-apiserver",
            f"--etcd-servers={client}",
            f"--secure-port={self.port}",
            "--bind-address=::1",
            "--advertise-address=fd00::1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=fd00:1::/112",
            f"--tls-cert-file={at / 'server.crt'}",
            f"--tls-private-key-file={at / 'server.key'}",
            f"--client-ca-file={at / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at / 'sa.key'}",
            f"--service-account-signing-key-file={at / 'sa.key'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
        )
        self._wait_ready()

    def _wait_ready(self) -> None:
        assert self._server is not None
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        deadline = time.monotonic() + START_SECONDS
        problem: object = "not asked"
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                break
            with contextlib.suppress(OSError):
                try:
                    with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=5) as answer:
                        if answer.status == 200:
                            return
                except urllib.error.HTTPError as error:
                    problem = error
            time.sleep(0.1)
        log = (self.directory / "kube-apiserver.log").read_text(errors="replace")[-3000:]
        raise AssertionError(f"kube-apiserver isn't ready within {START_SECONDS} s ({problem}):\n{log}")

    def kill(self) -> None:
        """kill -9 of the API server; etcd stays."""
        assert self._server is not None
        self._server.kill()
        self._server.wait(10)
        self._server = None

    def compact(self) -> None:
        """Has etcd forget all history, so that every older resource version is gone."""

        def call(path: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
            request = urllib.request.Request(
                f"http://[::1]:{self._etcd_client}/v3/{path}", json.dumps(body).encode(), method="POST"
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                return dict(json.load(answer))

        revision = call("kv/range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"]
        call("kv/compaction", {"revision": revision, "physical": True})

    def stop(self) -> None:
        """Ends both processes."""
        for process in (self._server, self._etcd):
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)
        self._server = self._etcd = None


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[ApiServer]:
    missing = [name for name in ("etcd", "kube-apiserver") if not (BINARIES / name).exists()]
    if missing:
        pytest.fail(f"{', '.join(missing)} not in build/bin: run python3 hack/toolchain {' '.join(missing)}")
    server = ApiServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        if not os.environ.get("KEEP_CONTRACT_LOGS"):
            shutil.rmtree(directory / "etcd", ignore_errors=True)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The session's API server. Use names or namespaces of your own; don't kill it."""
    with _running(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture
def own_api_server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server for one test, to kill and restart."""
    with _running(tmp_path) as server:
        yield server
