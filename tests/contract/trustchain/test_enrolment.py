"""Enrolment through the real process: what is granted to whom, and what is refused and why."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hypermesh import addressing, certificates, enrolments, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh.v1 import trust_pb2_grpc
from hypermesh_clients.enrolment import Enrolment, EnrolmentRefused, TrustChainUnavailable, enrol
from hypermesh_clients.kube_resources import CONFIG_MAPS, NAMESPACES, PODS
from hypermesh_clients.trust import Trust, read_trust


@pytest.fixture
async def trust(install: Any) -> Trust:
    return await read_trust(install.kube, install.namespace, patience=10)


async def enrol_at(install: Any, trust: Trust, token: Path, key: falcon.KeyPair | None = None) -> Enrolment:
    return await enrol(
        install.target,
        trust.ca_pem,
        key or falcon.generate(),
        token,
        root_public=trust.root_public,
        patience=10,
        server_name=install.server_name,
    )


def csr(key: Any | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.DER)


class Raw:
    """The bare gRPC stub, to say what no honest client says."""

    def __init__(self, install: Any, trust: Trust) -> None:
        options = [("grpc.ssl_target_name_override", install.server_name)]
        credentials = grpc.ssl_channel_credentials(trust.ca_pem)
        self.channel = grpc.aio.secure_channel(install.target, credentials, options=options)
        self.stub = trust_pb2_grpc.TrustChainStub(self.channel)

    async def begin(self, key: falcon.KeyPair) -> bytes:
        request = pb.EnrolmentRequest(public_key=key.public, algorithm=certificates.FALCON)
        return bytes((await self.stub.Begin(request, timeout=10)).nonce)

    async def complete(
        self, key: falcon.KeyPair, nonce: bytes, token: str, request: bytes, /, **other: Any
    ) -> pb.Enrolment:
        proof = {
            "nonce": nonce,
            "public_key": key.public,
            "signature": enrolments.sign(key.secret, nonce, token, request),
            "token": token,
            "tls_csr": request,
            **other,
        }
        answer: pb.Enrolment = await self.stub.Complete(pb.EnrolmentProof(**proof), timeout=10)
        return answer

    async def refused(self, *arguments: Any, **other: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.complete(*arguments, **other)
        return caught.value.code(), dict(caught.value.trailing_metadata() or ()).get("hypermesh-reason", "")


@pytest.fixture
async def raw(install: Any, trust: Trust) -> Any:
    client = Raw(install, trust)
    yield client
    await client.channel.close()


async def test_published_trust_is_what_the_root_is(install: Any, trust: Trust) -> None:
    kube_system = await install.kube.get(NAMESPACES, "kube-system")
    assert trust.cluster_uid == kube_system["metadata"]["uid"]
    assert trust.federation == addressing.federation_id(trust.root_public)
    assert trust.prefix.prefixlen == 64
    assert trust.prefix.network_address.packed[:6] == b"\xfd" + trust.federation
    root = x509.load_pem_x509_certificate(trust.ca_pem)
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert root.public_key().curve.name == "secp384r1"


async def test_a_node_gets_its_name_from_its_token(install: Any, trust: Trust) -> None:
    token, pod = await install.token_file()
    key = falcon.generate()
    enrolment = await enrol_at(install, trust, token, key)
    body = certificates.verify(enrolment.certificate, trust.root_public, int(time.time()))
    assert body.role == pb.ROLE_NODE
    assert body.subject == pod["spec"]["nodeName"]
    assert body.subject_key == key.public
    assert body.cluster_uid == trust.cluster_uid
    assert body.cluster == trust.cluster
    leaf = x509.load_pem_x509_certificate(enrolment.tls_chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    prefix = addressing.node_prefix(trust.federation, trust.cluster, key.key_id(), body.node_counter)
    assert [str(name.value) for name in names] == [addressing.tls_name(prefix)]
    assert leaf.not_valid_after_utc.timestamp() == body.not_after
    assert time.time() < enrolment.renew_at < body.not_after


@pytest.mark.parametrize(
    ("account", "role"), [("hypermesh-operator", pb.ROLE_OPERATOR), ("hypermesh-ledger", pb.ROLE_VALIDATOR)]
)
async def test_services_get_their_role_and_service_name(install: Any, trust: Trust, account: str, role: int) -> None:
    token, pod = await install.token_file(account)
    enrolment = await enrol_at(install, trust, token)
    subject = pod["metadata"]["name"] if role == pb.ROLE_VALIDATOR else account
    assert (enrolment.body.role, enrolment.body.subject, enrolment.body.node_counter) == (role, subject, 0)
    leaf = x509.load_pem_x509_certificate(enrolment.tls_chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{account}.{install.namespace}.svc"]


async def test_an_answer_of_another_root_is_not_believed(install: Any, trust: Trust) -> None:
    """Whoever answers under the TLS root, but for a FALCON root that nobody published."""
    token, _ = await install.token_file()
    with pytest.raises(EnrolmentRefused, match="another root than ConfigMap hypermesh-trust names") as caught:
        await enrol_at(install, replace(trust, root_public=falcon.generate().public), token)
    assert caught.value.reason == "RootForeign"


async def test_enrolling_again_keeps_the_address_and_renews(install: Any, trust: Trust) -> None:
    token, _ = await install.token_file()
    key = falcon.generate()
    first, second = [await enrol_at(install, trust, token, key) for _ in range(2)]
    assert first.body.node_counter == second.body.node_counter
    assert first.body.serial != second.body.serial


async def test_one_node_does_not_enrol_keys_without_end(install: Any, trust: Trust) -> None:
    token, pod = await install.token_file()
    first = falcon.generate()
    for key in (first, *(falcon.generate() for _ in range(3))):
        await enrol_at(install, trust, token, key)
    began = time.monotonic()
    with pytest.raises(EnrolmentRefused, match=f"{pod['spec']['nodeName']} has 4 keys") as caught:
        await enrol(
            install.target,
            trust.ca_pem,
            falcon.generate(),
            token,
            root_public=trust.root_public,
            patience=600,
            server_name=install.server_name,
        )
    assert caught.value.reason == "TooManyKeys"
    assert time.monotonic() - began < 60, "the client should not try again"
    await enrol_at(install, trust, token, first)
    await enrol_at(install, trust, (await install.token_file())[0])


async def test_the_tls_chain_works_under_its_name_and_no_other(install: Any, trust: Trust, tmp_path: Path) -> None:
    token, _ = await install.token_file()
    enrolment = await enrol_at(install, trust, token)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(enrolment.tls_chain + enrolment.tls_key)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=trust.ca_pem.decode())
    server_side.load_cert_chain(chain)
    server_side.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(lambda _, writer: writer.close(), "::1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    client_side = ssl.create_default_context(cadata=trust.ca_pem.decode())
    client_side.load_cert_chain(chain)
    prefix = addressing.node_prefix(trust.federation, trust.cluster, enrolment.key_id, enrolment.body.node_counter)
    name = addressing.tls_name(prefix)
    reader, writer = await asyncio.open_connection("::1", port, ssl=client_side, server_hostname=name)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("::1", port, ssl=client_side, server_hostname=install.server_name)
    server.close()


async def test_refused_tokens(install: Any, trust: Trust) -> None:
    """Other audience, no audience, nonsense, a pod that is gone, and a service account token without pod."""
    pod = await install.pod("hypermesh-agent")
    token = install.directory / "token"

    async def reason(text: str) -> str:
        token.write_text(text)
        with pytest.raises(EnrolmentRefused) as caught:
            await enrol_at(install, trust, token)
        assert text[:20] not in caught.value.message
        return caught.value.reason

    assert await reason(await install.token("hypermesh-agent", pod, audience="somebody-else")) == "TokenInvalid"
    assert await reason(await install.token("hypermesh-agent", pod, audience=None)) == "TokenInvalid"
    assert await reason("eyJhbGciOiJub25lIn0.e30.") == "TokenInvalid"
    assert await reason("nonsense") == "TokenInvalid"
    assert await reason(await install.token("hypermesh-agent", None)) == "TokenUnbound"
    good = await install.token("hypermesh-agent", pod)
    await install.kube.delete(PODS, pod["metadata"]["name"], install.namespace)
    await install.kube.request(
        "DELETE",
        PODS.path(install.namespace, pod["metadata"]["name"]),
        about="pod",
        body={"gracePeriodSeconds": 0},
    )
    assert await reason(good) == "TokenInvalid"


async def test_other_accounts_and_namespaces_are_refused(install: Any, trust: Trust) -> None:
    elsewhere = f"{install.namespace}-b"
    await install.kube.create(NAMESPACES, {"metadata": {"name": elsewhere}})
    token = install.directory / "token"
    for account, namespace in (("default", None), ("hypermesh-trustchain", None), ("hypermesh-agent", elsewhere)):
        pod = await install.pod(account, namespace=namespace)
        token.write_text(await install.token(account, pod, namespace=namespace))
        with pytest.raises(EnrolmentRefused, match=r"hypermesh-agent, hypermesh-operator, hypermesh-ledger") as caught:
            await enrol_at(install, trust, token)
        assert caught.value.reason == "AccountUnknown"


async def test_a_challenge_is_good_once_and_for_one_key(install: Any, raw: Raw) -> None:
    token = (await install.token_file())[0].read_text()
    key, other = falcon.generate(), falcon.generate()
    nonce = await raw.begin(key)
    assert await raw.refused(other, nonce, token, csr()) == (grpc.StatusCode.FAILED_PRECONDITION, "ChallengeUnknown")
    assert (await raw.complete(key, nonce, token, csr())).root_public_key
    assert await raw.refused(key, nonce, token, csr()) == (grpc.StatusCode.FAILED_PRECONDITION, "ChallengeUsed")
    for made_up in (b"", bytes(32), nonce[:-1], nonce + b"\0", nonce[:16] + bytes(16)):
        assert (await raw.refused(key, made_up, token, csr()))[1] == "ChallengeUnknown"


async def test_two_answers_at_once_to_one_challenge(install: Any, raw: Raw) -> None:
    token = (await install.token_file())[0].read_text()
    key = falcon.generate()
    nonce = await raw.begin(key)
    answers = await asyncio.gather(*(raw.complete(key, nonce, token, csr()) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(answer, pb.Enrolment) for answer in answers) == 1


async def test_the_signature_binds_key_nonce_token_and_request(install: Any, raw: Raw) -> None:
    token = (await install.token_file())[0].read_text()
    stolen = (await install.token_file())[0].read_text()
    key, thief = falcon.generate(), falcon.generate()
    mine, theirs = csr(), csr()
    wrong = (grpc.StatusCode.UNAUTHENTICATED, "BadSignature")

    async def sent(**other: Any) -> tuple[grpc.StatusCode, str]:
        return await raw.refused(key, await raw.begin(key), token, mine, **other)

    nonce = await raw.begin(key)
    assert (
        await raw.refused(key, nonce, token, mine, signature=enrolments.sign(thief.secret, nonce, token, mine)) == wrong
    )
    assert await sent(token=stolen) == wrong
    assert await sent(tls_csr=theirs) == wrong
    assert await sent(signature=bytes(falcon.SIGNATURE_BYTES)) == wrong
    assert await sent(signature=b"") == wrong
    nonce = await raw.begin(key)
    signature = bytearray(enrolments.sign(key.secret, nonce, token, mine))
    signature[700] ^= 1
    assert await raw.refused(key, nonce, token, mine, signature=bytes(signature)) == wrong


def _tampered(der: bytes) -> bytes:
    return der[:-1] + bytes([der[-1] ^ 1])


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x30\x03\x02\x01\x01", id="another structure"),
        pytest.param(csr()[:-10], id="truncated"),
        pytest.param(csr() + b"\0", id="trailing byte"),
        pytest.param(_tampered(csr()), id="signature of nobody"),
        pytest.param(csr(rsa.generate_private_key(65537, 2048)), id="rsa"),
        pytest.param(csr(ed25519.Ed25519PrivateKey.generate()), id="ed25519"),
        pytest.param(csr(ec.generate_private_key(ec.SECP521R1())), id="other curve"),
        pytest.param(b"\x30" * 9000, id="oversized"),
    ],
)
async def test_unusable_tls_requests(install: Any, raw: Raw, request_bytes: bytes) -> None:
    token = (await install.token_file())[0].read_text()
    key = falcon.generate()
    status = await raw.refused(key, await raw.begin(key), token, request_bytes)
    assert status == (grpc.StatusCode.INVALID_ARGUMENT, "CsrInvalid")


async def test_names_in_the_request_are_ignored(install: Any, raw: Raw, trust: Trust) -> None:
    token = (await install.token_file())[0].read_text()
    key, tls = falcon.generate(), ec.generate_private_key(ec.SECP384R1())
    wish = x509.SubjectAlternativeName([x509.DNSName("kubernetes.default.svc"), x509.DNSName(install.server_name)])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes.default.svc")]))
        .add_extension(wish, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=3), critical=True)
        .sign(tls, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    answer = await raw.complete(key, await raw.begin(key), token, request)
    leaf = x509.load_pem_x509_certificate(answer.tls_chain)
    assert b"kubernetes" not in leaf.public_bytes(serialization.Encoding.DER)
    assert install.server_name.encode() not in leaf.public_bytes(serialization.Encoding.DER)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_malformed_messages(install: Any, raw: Raw) -> None:
    token = (await install.token_file())[0].read_text()
    key = falcon.generate()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw.stub.Begin(pb.EnrolmentRequest(public_key=key.public[:-1], algorithm=certificates.FALCON), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match="key algorithm 0 is unknown; use 1"):
        await raw.stub.Begin(pb.EnrolmentRequest(public_key=key.public), timeout=10)
    nonce = await raw.begin(key)
    assert await raw.refused(key, nonce, token, csr(), public_key=b"") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Malformed",
    )
    assert (await raw.refused(key, nonce, "x" * 20000, csr()))[1] == "Malformed"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw.complete(key, nonce, "x" * 200_000, csr())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    send = raw.channel.unary_unary("/hypermesh.v1.TrustChain/Complete")
    with pytest.raises(grpc.aio.AioRpcError):
        await send(b"\xff" * 100, timeout=10)
    assert (await raw.complete(key, nonce, token, csr())).tls_chain, "it should have survived all that"


async def test_it_speaks_only_tls_and_only_under_its_name(install: Any, trust: Trust) -> None:
    token, _ = await install.token_file()
    with socket.create_connection(("::1", install.port), timeout=10) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        plain.settimeout(10)
        assert not plain.recv(64).startswith(b"\0\0")  # no HTTP/2 settings frame
    key = falcon.generate()
    brief: dict[str, Any] = {"root_public": trust.root_public, "patience": 0.5}
    with pytest.raises(TrustChainUnavailable):
        await enrol(install.target, trust.ca_pem, key, token, **brief, server_name="elsewhere.example")
    other = await asyncio.to_thread(install.server.authority.read_bytes)
    with pytest.raises(TrustChainUnavailable):
        await enrol(install.target, other, key, token, **brief, server_name=install.server_name)


async def test_metrics_and_logs_tell_outcomes_and_no_secrets(bare: Any) -> None:
    install = bare
    await install.spawn()
    await install.ready()
    trust = await read_trust(install.kube, install.namespace, patience=10)
    token, pod = await install.token_file()
    await enrol_at(install, trust, token)
    bad = install.directory / "bad"
    bad.write_text("nonsense-token-text")
    with pytest.raises(EnrolmentRefused):
        await enrol_at(install, trust, bad)
    status, metrics = await asyncio.to_thread(install.probe, "/metrics")
    assert status == 200
    assert 'hypermesh_trustchain_enrolments_total{outcome="granted"} 1.0' in metrics
    assert 'hypermesh_trustchain_enrolments_total{outcome="TokenInvalid"} 1.0' in metrics
    assert "hypermesh_trustchain_known_nodes 1.0" in metrics
    text = (install.directory / "trustchain.log").read_text()
    assert pod["spec"]["nodeName"] in text
    assert "TokenInvalid" in text
    assert token.read_text() not in text
    assert "nonsense-token-text" not in text
    assert "PRIVATE" not in text


async def test_many_nodes_at_once_all_get_addresses_of_their_own(install: Any, trust: Trust) -> None:
    files = [await install.token_file() for _ in range(20)]
    enrolled = await asyncio.gather(*(enrol_at(install, trust, token) for token, _ in files))
    prefixes = {
        addressing.node_prefix(trust.federation, trust.cluster, item.key_id, item.body.node_counter)
        for item in enrolled
    }
    assert len(prefixes) == 20
    assert [item.body.subject for item in enrolled] == [pod["spec"]["nodeName"] for _, pod in files]
    data = (await install.kube.get(CONFIG_MAPS, "hypermesh-trust", install.namespace))["data"]
    assert set(data) == {"root.pub", "ca.crt", "federation", "cluster", "prefix", "clusterUID"}
