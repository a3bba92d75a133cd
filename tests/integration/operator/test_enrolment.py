"""The very first start: the operator makes its key, waits for TrustChain however long it is absent, and enrols.

TrustChain is the real process under the chart's rights. Its TLS names are those of Kubernetes services, which nothing
resolves here: the operator gets an /etc/hosts of its own, in a mount namespace that ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import falcon
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.kube_resources import CONFIG_MAPS, NAMESPACES, SECRETS
from hypermesh_clients.kube_secrets import contents, encoded
from hypermesh_operator import identity
from hypermesh_trustchain import roots

from ...api_objects import bound_token, install_chart, kubeconfig, pod_of, token
from ...processes import Started, free_port
from ..operator_fixture import LIMIT_S, SYSTEM, Mesh, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}
SERVICE = f"hypermesh-trustchain.{SYSTEM}.svc"
IN_ITS_OWN_MOUNTS = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


@dataclass
class Beginning:
    """A mesh in which no operator ever ran and TrustChain does not run, but has the ledger's root."""

    mesh: Mesh
    port: int

    @contextlib.asynccontextmanager
    async def trustchain(self) -> AsyncIterator[Started]:
        """TrustChain, in the body."""
        directory = self.mesh.directory
        bearer = await bound_token(self.mesh.kube, "hypermesh-trustchain", "node-1")
        config = kubeconfig(self.mesh.api.kubeconfig, directory / "trustchain.kubeconfig", bearer)
        environment = {"KUBECONFIG": str(config), "POD_NAMESPACE": SYSTEM}
        arguments = ["--listen", f"[::1]:{self.port}"]
        log_file = directory / "trustchain.log"
        process = Started.start("hypermesh_trustchain.main", arguments, environment, log_file, free_port())
        try:
            await process.until_ready("trust")
            yield process
        finally:
            process.stop()

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Started]:
        """An operator that finds TrustChain by the name of its service, started in the body."""
        mesh, directory, probes = self.mesh, self.mesh.directory, free_port()
        hosts, token_file, log_file = directory / "hosts", directory / "token", directory / "first.log"
        hosts.write_text(f"::1 localhost {SERVICE}\n")
        pod = await pod_of(mesh.kube, "hypermesh-operator", "node-1")
        token_file.write_text(await token(mesh.kube, "hypermesh-operator", pod=pod, audience="hypermesh-trustchain"))
        environment = {
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "POD_NAMESPACE": SYSTEM,
            "HYPERMESH_LEDGER": mesh.ledger.target,
            "HYPERMESH_TRUSTCHAIN": f"{SERVICE}:{self.port}",
            "HYPERMESH_TOKEN_FILE": str(token_file),
            "HYPERMESH_METRICS_PORT": str(probes),
        }
        config = str(await mesh.operator_kubeconfig())
        program = (sys.executable, "-P", "-m", "hypermesh_operator.main", "--kubeconfig", config)
        with log_file.open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - forking takes a millisecond
                (*IN_ITS_OWN_MOUNTS, str(hosts), *program), env=environment, cwd=directory, stdout=output, stderr=output
            )
        started = Started(process, probes, log_file)
        try:
            yield started
        finally:
            started.stop()

    async def key_id(self) -> bytes:
        """Of the key that the operator made."""
        data = contents(await self.mesh.kube.get(SECRETS, identity.SECRET, SYSTEM))
        return falcon.KeyPair.decode(data[identity.FALCON_KEY]).key_id()


@pytest_asyncio.fixture(loop_scope="module")
async def beginning(tmp_path: Path) -> AsyncIterator[Beginning]:
    async with running_mesh(tmp_path) as mesh:
        files = mesh.ledger.directory
        key = serialization.load_pem_private_key((files / "tls.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        certificate = x509.load_pem_x509_certificate((files / "tls.crt").read_bytes())
        root = roots.Root(mesh.ledger.root.keypair, key, certificate)
        await install_chart(mesh.kube, "trustchain/rbac.yaml")
        await mesh.kube.merge_patch(SECRETS, roots.SECRET, {"data": encoded(root.encode())}, SYSTEM)
        await mesh.kube.merge_patch(SECRETS, identity.SECRET, {"data": None}, SYSTEM)
        await mesh.kube.merge_patch(CONFIG_MAPS, "hypermesh-trust", {"data": None}, SYSTEM)
        yield Beginning(mesh, free_port())


async def until_it_waits(operator: Started, check: str) -> str:
    """The line of /readyz that says so."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            status, text = await asyncio.to_thread(operator.probe, "/readyz")
            if lines := [line for line in text.splitlines() if line.startswith(f"[-] {check}: ")]:
                assert status == 503
                return lines[0]
            assert operator.process.poll() is None, operator.log()
            await asyncio.sleep(0.05)


async def test_the_first_operator_of_a_cluster_waits_for_trustchain_and_enrols(beginning: Beginning) -> None:
    mesh = beginning.mesh
    async with beginning.operator() as operator:
        async with asyncio.timeout(LIMIT_S):
            while "for TrustChain" not in await until_it_waits(operator, "started"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while "waiting for TrustChain's ConfigMap" not in operator.log():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with beginning.trustchain():
            await mesh.until_leads(operator)
            record = mesh.ledger.mirror.nodes[await beginning.key_id()]
            body = trust_pb2.CertificateBody.FromString(record.certificate.body)
            cluster_uid = (await mesh.kube.get(NAMESPACES, "kube-system"))["metadata"]["uid"]
            assert (body.role, body.cluster_uid) == (trust_pb2.ROLE_OPERATOR, cluster_uid)
            mesh.nodes["node-1"] = await mesh.ledger.enrol(trust_pb2.ROLE_NODE, "node-1", cluster_uid=cluster_uid)
            await mesh.prove("node-1")
            await mesh.asset(ledger_pb2.ASSET_TYPE_MEMORY, "mem-0", 8 << 30)
            async with mesh.reporting():
                await mesh.apply("first", ONE_GI)
                await mesh.until("first", "Ready")
    async with beginning.operator() as again:  # TrustChain is gone: what the ledger holds is enough
        await mesh.until_leads(again)


async def test_published_trust_without_trustchain_is_waited_for_too(beginning: Beginning) -> None:
    mesh = beginning.mesh
    async with beginning.trustchain():
        pass  # it published
    async with beginning.operator() as operator:
        assert "does not hold this operator's certificate" in await until_it_waits(operator, "enrolment")
        async with beginning.trustchain():
            await mesh.until_leads(operator)
            assert await beginning.key_id() in mesh.ledger.mirror.nodes
