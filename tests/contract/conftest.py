"""A real API server for the contract tests: etcd and kube-apiserver on ::1, nothing else of a cluster.

`api_server` is shared by a session; `module_api_server` belongs to the tests of one file, `own_api_server` to one test,
which may kill and restart it.
Nothing runs controllers: objects stay as they are written, and finalizers are the test's to remove.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / "build" / "bin"
sys.path.append(str(ROOT / "hack" / "cluster"))  # last: it must shadow nothing

from local_cluster.kubectl import wait_for_api  # noqa: E402
from local_cluster.private_api import READY_SECONDS, STOP_SECONDS, PrivateApi, private_api  # noqa: E402


class ApiServer:
    """A running API server. `kill()` is kill -9 of it, etcd stays; `start()` starts it again."""

    def __init__(self, directory: Path, api: PrivateApi) -> None:
        self.directory = directory
        self.url = api.url
        self.port = int(api.url.rpartition(":")[2])
        self.kubeconfig = api.kubeconfig
        self.authority = directory / "certificates" / "ca.crt"
        self._first = api.processes[1]
        self._command = [str(part) for part in self._first.args]  # type: ignore[union-attr]
        self._etcd = next(part.partition("=")[2] for part in self._command if part.startswith("--etcd-servers="))
        self._again: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """kill -9; the port answers nobody when this returns."""
        process = self._again or self._first
        process.kill()
        process.wait(STOP_SECONDS)

    def start(self) -> None:
        """Starts it again and waits until it is ready."""
        log = self.directory / "kube-apiserver.log"
        with log.open("ab") as output:
            self._again = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_for_api(self.url, self.authority, READY_SECONDS, log)

    def stop(self) -> None:
        """Ends what `start` started."""
        if self._again is not None and self._again.poll() is None:
            self.kill()

    def compact(self) -> None:
        """Has etcd forget all history, so that every older resource version is gone."""
        revision = self._store("kv/range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"]
        self._store("kv/compaction", {"revision": revision, "physical": True})

    def _store(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self._etcd}/v3/{path}", json.dumps(body).encode(), method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[ApiServer]:
    with private_api(directory, BINARIES) as api:
        server = ApiServer(directory, api)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The session's API server. Use names or namespaces of your own; don't kill it."""
    with _running(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="module")
def module_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server for the tests of one file, which may leave in it what they like."""
    with _running(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture
def own_api_server(tmp_path: Path) -> Iterator[ApiServer]:
    """An API server for one test, to kill and restart."""
    with _running(tmp_path) as server:
        yield server
