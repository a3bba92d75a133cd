"""TrustChain through its own life: first start, rivals, kill -9, an API server that dies, damaged or foreign roots."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import addressing, enrolments, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh_clients.enrolment import Enrolment, enrol
from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_resources import CONFIG_MAPS, SECRETS
from hypermesh_clients.trust import Trust, TrustInvalid, TrustNotPublished, read_trust
from hypermesh_trustchain import tls_leaves
from hypermesh_trustchain.challenges import LIFETIME_MS
from hypermesh_trustchain.enrolling import Enroller, Place
from hypermesh_trustchain.publishing import FederationMismatch, Publisher
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason
from hypermesh_trustchain.root_store import NODES, RootReplaced, RootStore
from hypermesh_trustchain.roots import CLUSTER, FALCON_KEY, SECRET, RootDamaged
from hypermesh_trustchain.service import ServerCertificate, server

NOW = 1_800_000_000


async def trust_of(install: Any) -> Trust:
    return await read_trust(install.kube, install.namespace, patience=30)


async def enrol_at(install: Any, trust: Trust, key: falcon.KeyPair, token: Path) -> Enrolment:
    return await enrol(
        install.target,
        trust.ca_pem,
        key,
        token,
        root_public=trust.root_public,
        patience=60,
        server_name=install.server_name,
    )


async def exit_code(process: Any) -> int:
    return int(await asyncio.to_thread(process.wait, 30))


async def test_of_many_first_starters_one_makes_the_root(bare: Any) -> None:
    stores = [RootStore(bare.kube, bare.namespace) for _ in range(6)]
    roots = await asyncio.gather(*(store.open() for store in stores))
    assert len({root.falcon.public for root in roots}) == 1
    assert len({root.ca_pem for root in roots}) == 1
    secret = await bare.kube.get(SECRETS, SECRET, bare.namespace)
    assert set(secret["data"]) == {"falcon.key", "tls.key", "ca.crt"}


async def test_two_stores_never_forget_each_others_nodes(bare: Any) -> None:
    first, second = RootStore(bare.kube, bare.namespace), RootStore(bare.kube, bare.namespace)
    await first.open()
    await second.open()
    keys = [bytes([number]) * 32 for number in range(20)]
    await asyncio.gather(
        *((first if number % 2 else second).enrol(key, f"node-{number}", NOW, NOW) for number, key in enumerate(keys))
    )
    third = RootStore(bare.kube, bare.namespace)
    await third.open()
    assert third.known == 20


def colliding() -> tuple[bytes, bytes]:
    """Two key ids whose 24 bits are equal; a few thousand tries find them (birthday bound)."""
    seen: dict[int, bytes] = {}
    for number in range(1 << 20):
        key_id = hashlib.sha256(number.to_bytes(8, "big")).digest()
        bits = addressing.node_bits(key_id, 0)
        if bits in seen:
            return seen[bits], key_id
        seen[bits] = key_id
    raise AssertionError("no collision among a million keys: the hash isn't what it was")


async def test_a_colliding_node_gets_the_next_counter_and_keeps_it(bare: Any) -> None:
    store = RootStore(bare.kube, bare.namespace)
    await store.open()
    first, second = colliding()
    assert [await store.enrol(key, "node-1", NOW, NOW) for key in (first, second)] == [0, 1]
    again = RootStore(bare.kube, bare.namespace)
    await again.open()
    assert [await again.enrol(key, "node-1", NOW + 60, NOW) for key in (second, first)] == [1, 0]


async def test_kill_and_restart_keep_the_federation_and_the_addresses(bare: Any) -> None:
    await bare.spawn()
    await bare.ready()
    trust, key = await trust_of(bare), falcon.generate()
    token, _ = await bare.token_file()
    before = await enrol_at(bare, trust, key, token)
    bare.kill()
    waiting = asyncio.create_task(enrol_at(bare, trust, key, token))
    await bare.spawn()
    await bare.ready()
    assert await trust_of(bare) == trust
    after = await asyncio.wait_for(waiting, 60)
    assert after.body.node_counter == before.body.node_counter
    assert after.root_public == before.root_public


async def test_sigterm_ends_it_in_order(bare: Any) -> None:
    process = await bare.spawn()
    await bare.ready()
    process.terminate()
    assert await exit_code(process) == 0


async def test_an_api_server_that_dies_delays_enrolment_only(own_install: Any) -> None:
    trust = await trust_of(own_install)
    token, _ = await own_install.token_file()
    await own_install.kube.close()
    own_install.server.kill()
    waiting = asyncio.create_task(enrol_at(own_install, trust, falcon.generate(), token))
    done, _ = await asyncio.wait({waiting}, timeout=1)
    assert not done
    await asyncio.to_thread(own_install.server.start)
    enrolment = await asyncio.wait_for(waiting, 90)
    assert enrolment.body.role == pb.ROLE_NODE
    await own_install.ready()


async def test_without_the_charts_secret_it_waits_and_says_so(bare: Any) -> None:
    await bare.kube.delete(SECRETS, SECRET, bare.namespace)
    await bare.spawn()
    status, text = 0, ""
    async with asyncio.timeout(60):
        while SECRET not in text:
            status, text = await asyncio.to_thread(bare.probe, "/readyz")
            await asyncio.sleep(0.1)
    assert status == 503
    assert (await asyncio.to_thread(bare.probe, "/healthz"))[0] == 200
    with pytest.raises(TrustNotPublished, match="still empty"):
        await read_trust(bare.kube, bare.namespace, patience=0.3)
    await bare.kube.create(SECRETS, {"metadata": {"name": SECRET, "namespace": bare.namespace}})
    await bare.ready()


async def test_a_damaged_root_is_told_and_never_replaced(bare: Any) -> None:
    store = RootStore(bare.kube, bare.namespace)
    root = await store.open()
    whole = root.encode()[FALCON_KEY]
    damaged = base64.b64encode(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]).decode()
    await bare.kube.merge_patch(SECRETS, SECRET, {"data": {FALCON_KEY: damaged}}, bare.namespace)
    with pytest.raises(RootDamaged, match="restore Secret"):
        await RootStore(bare.kube, bare.namespace).open()
    process = await bare.spawn()
    assert await exit_code(process) == 1
    assert "restore Secret" in bare.log()[-1]["message"]
    secret = await bare.kube.get(SECRETS, SECRET, bare.namespace)
    assert secret["data"][FALCON_KEY] == damaged


async def test_a_root_of_another_federation_is_not_published(bare: Any) -> None:
    """The Secret was lost and made anew, but nodes trust the old root: a person must decide."""
    await bare.spawn()
    await bare.ready()
    trust = await trust_of(bare)
    bare.kill()
    await bare.kube.delete(SECRETS, SECRET, bare.namespace)
    await bare.kube.create(SECRETS, {"metadata": {"name": SECRET, "namespace": bare.namespace}})
    process = await bare.spawn()
    assert await exit_code(process) == 1
    assert "restore the Secret" in bare.log()[-1]["message"]
    assert await trust_of(bare) == trust


async def test_a_running_process_notices_a_replaced_root(bare: Any) -> None:
    store = RootStore(bare.kube, bare.namespace)
    await store.open()
    await bare.kube.delete(SECRETS, SECRET, bare.namespace)
    await bare.kube.create(SECRETS, {"metadata": {"name": SECRET, "namespace": bare.namespace}})
    await RootStore(bare.kube, bare.namespace).open()
    with pytest.raises(RootReplaced, match="restart"):
        await store.enrol(bytes(32), "node-1", NOW, NOW)


@pytest.mark.parametrize(("key", "damage"), [(NODES, b"no whole record"), (FALCON_KEY, b"no key")])
async def test_an_enrolment_that_finds_the_secret_damaged_ends_the_process(bare: Any, key: str, damage: bytes) -> None:
    process = await bare.spawn()
    await bare.ready()
    trust = await trust_of(bare)
    token, _ = await bare.token_file()
    await bare.kube.merge_patch(SECRETS, SECRET, {"data": {key: base64.b64encode(damage).decode()}}, bare.namespace)
    waiting = asyncio.create_task(enrol_at(bare, trust, falcon.generate(), token))
    try:
        assert await exit_code(process) == 1
        assert "restore Secret hypermesh-trustchain-root" in bare.log()[-1]["message"]
        assert bare.log()[-1]["level"] == "critical"
        assert not waiting.done(), "the client should wait for the next process"
    finally:
        waiting.cancel()


async def test_published_trust_is_repaired_and_checked(bare: Any) -> None:
    root = await RootStore(bare.kube, bare.namespace).open()
    trust = Trust(root.falcon.public, root.ca_pem, root.federation, CLUSTER, root.prefix, "uid")
    publisher = Publisher(bare.kube, bare.namespace, trust)
    assert "not tried yet" in (publisher.check() or "")
    await publisher.publish()
    assert publisher.check() is None
    assert await trust_of(bare) == trust
    other = base64.b64encode(falcon.generate().public).decode()
    await bare.kube.merge_patch(CONFIG_MAPS, "hypermesh-trust", {"data": {"root.pub": other}}, bare.namespace)
    with pytest.raises(TrustInvalid, match=r"hash of root\.pub"):
        await read_trust(bare.kube, bare.namespace, patience=0.3)
    waiting = asyncio.create_task(trust_of(bare))
    await asyncio.wait([waiting], timeout=0.5)
    assert not waiting.done(), "damaged trust is waited out, for it is repaired"
    await publisher.publish()
    assert await waiting == trust
    await bare.kube.merge_patch(CONFIG_MAPS, "hypermesh-trust", {"data": {"federation": "0011223344"}}, bare.namespace)
    with pytest.raises(FederationMismatch):
        await publisher.publish()
    await bare.kube.delete(CONFIG_MAPS, "hypermesh-trust", bare.namespace)
    with pytest.raises(TrustNotPublished, match="doesn't exist"):
        await read_trust(bare.kube, bare.namespace, patience=0.3)


async def test_its_rights_end_at_its_own_objects(bare: Any) -> None:
    async with Kube.from_kubeconfig(await bare.kubeconfig()) as poor:
        assert await poor.get(SECRETS, SECRET, bare.namespace)
        with pytest.raises(Exception, match="forbidden"):
            await poor.get(SECRETS, "hypermesh-operator-key", bare.namespace)
        with pytest.raises(Exception, match="forbidden"):
            await poor.create(SECRETS, {"metadata": {"name": "new", "namespace": bare.namespace}})
    with pytest.raises(NotFound):
        await bare.kube.get(SECRETS, "new", bare.namespace)


async def test_a_challenge_answered_too_late(bare: Any) -> None:
    store = RootStore(bare.kube, bare.namespace)
    enroller = Enroller(bare.kube, store, await store.open(), Place(bare.namespace, "uid"))
    token = (await bare.token_file())[0].read_text()
    key, tls = falcon.generate(), ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(tls, hashes.SHA256())
    der = request.public_bytes(serialization.Encoding.DER)

    def proof(made_ms: int) -> pb.EnrolmentProof:
        nonce = enroller._challenges.make(key.key_id(), made_ms)
        signature = enrolments.sign(key.secret, nonce, token, der)
        return pb.EnrolmentProof(nonce=nonce, public_key=key.public, signature=signature, token=token, tls_csr=der)

    now = time.monotonic_ns() // 1_000_000
    with pytest.raises(EnrolmentRefused) as caught:
        await enroller.complete(proof(now - LIFETIME_MS))
    assert caught.value.reason is Reason.CHALLENGE_EXPIRED
    assert store.known == 0
    await enroller.complete(proof(now - LIFETIME_MS // 2))
    assert store.known == 1


async def test_the_servers_own_certificate_is_renewed_while_it_runs(bare: Any) -> None:
    store = RootStore(bare.kube, bare.namespace)
    root = await store.open()
    certificate = ServerCertificate(root, bare.namespace)
    instance, port = server(Enroller(bare.kube, store, root, Place(bare.namespace, "uid")), certificate, "[::1]:0")
    await instance.start()
    context = ssl.create_default_context(cadata=root.ca_pem.decode())
    context.set_alpn_protocols(["h2"])

    async def serial() -> int:
        _, writer = await asyncio.open_connection("::1", port, ssl=context, server_hostname=bare.server_name)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(der).serial_number

    try:
        first = await serial()
        assert await serial() == first
        certificate._renew_at = 0.0
        assert await serial() != first
    finally:
        await instance.stop(0)


async def test_the_tls_root_can_speak_for_nobody_else(bare: Any) -> None:
    """Name constraints: even the root's own key can't make a certificate for a foreign name that clients take."""
    root = await RootStore(bare.kube, bare.namespace).open()

    async def accepted(name: str) -> bool:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = tls_leaves.issue(root, key.public_key(), [name], "test", datetime.now(UTC), timedelta(hours=1))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        instance = grpc.aio.server()
        port = instance.add_secure_port("[::1]:0", grpc.ssl_server_credentials([(pem, chain)]))
        await instance.start()
        credentials = grpc.ssl_channel_credentials(root.ca_pem)
        options = [("grpc.ssl_target_name_override", name)]
        async with grpc.aio.secure_channel(f"[::1]:{port}", credentials, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/hypermesh.v1.TrustChain/Begin")(b"", timeout=10)
        await instance.stop(0)
        return caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # TLS held, nobody serves the method

    prefix = addressing.node_prefix(root.federation, CLUSTER, bytes(32), 0)
    assert await accepted(addressing.tls_name(prefix))
    assert await accepted(f"hypermesh-ledger.{bare.namespace}.svc")
    assert not await accepted("example.com")
    assert not await accepted("kubernetes.default.svc")
