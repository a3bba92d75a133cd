"""Floods against TrustChain: junk proofs and calls that never say anything must not shut honest nodes out."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import certificates, enrolments, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh_trustchain import challenges, service
from hypermesh_trustchain.enrolling import Enroller, Place
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason
from hypermesh_trustchain.root_store import RootStore
from hypermesh_trustchain.service import ServerCertificate, server


def csr() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def proof(enroller: Enroller, key: falcon.KeyPair, token: str, *, signed: bool = True) -> pb.EnrolmentProof:
    nonce = enroller.begin(pb.EnrolmentRequest(public_key=key.public, algorithm=certificates.FALCON)).nonce
    request = csr()
    signature = enrolments.sign(key.secret, nonce, token, request) if signed else bytes(falcon.SIGNATURE_BYTES)
    return pb.EnrolmentProof(nonce=nonce, public_key=key.public, signature=signature, token=token, tls_csr=request)


async def test_junk_proofs_do_not_fill_the_table_of_nonces(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "MAX_ANSWERED", 5)
    store = RootStore(bare.kube, bare.namespace)
    enroller = Enroller(bare.kube, store, await store.open(), Place(bare.namespace, "uid"))
    token = (await bare.token_file())[0].read_text()
    key = falcon.generate()
    for signed, words, reason in (
        (False, token, Reason.BAD_SIGNATURE),
        (True, "nonsense", Reason.TOKEN_INVALID),
    ):
        for _ in range(8):
            with pytest.raises(EnrolmentRefused) as caught:
                await enroller.complete(proof(enroller, key, words, signed=signed))
            assert caught.value.reason is reason
    identity, _ = await enroller.complete(proof(enroller, key, token))
    assert identity.subject.startswith("node-")


async def test_a_call_that_never_says_anything_is_cut_off(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CONNECTION_AGE_MS", 500)
    monkeypatch.setattr(service, "CONNECTION_GRACE_MS", 500)
    monkeypatch.setattr(service, "MAX_RPCS", 4)
    store = RootStore(bare.kube, bare.namespace)
    root = await store.open()
    enroller = Enroller(bare.kube, store, root, Place(bare.namespace, "uid"))
    instance, port = server(enroller, ServerCertificate(root, bare.namespace), "[::1]:0")
    await instance.start()
    options = [("grpc.ssl_target_name_override", bare.server_name)]
    credentials = grpc.ssl_channel_credentials(root.ca_pem)
    request = pb.EnrolmentRequest(public_key=falcon.generate().public, algorithm=certificates.FALCON)
    try:
        async with (
            grpc.aio.secure_channel(f"[::1]:{port}", credentials, options=options) as silent,
            grpc.aio.secure_channel(f"[::1]:{port}", credentials, options=options) as honest,
        ):
            hanging = [silent.stream_unary("/hypermesh.v1.TrustChain/Complete")() for _ in range(4)]
            await asyncio.gather(*(call.wait_for_connection() for call in hanging))
            codes = await asyncio.wait_for(asyncio.gather(*(call.code() for call in hanging)), 30)
            assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
            begin = honest.unary_unary(
                "/hypermesh.v1.TrustChain/Begin",
                request_serializer=pb.EnrolmentRequest.SerializeToString,
                response_deserializer=pb.EnrolmentChallenge.FromString,
            )
            assert len((await begin(request, timeout=10, wait_for_ready=True)).nonce) == challenges.NONCE_BYTES
    finally:
        await instance.stop(0)
