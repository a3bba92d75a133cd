"""What an enrolling process believes of TrustChain's answer: measured by the roots it knew before it asked."""

from __future__ import annotations

import datetime
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh import certificates, falcon
from hypermesh.v1 import trust_pb2 as pb
from hypermesh_clients.enrolment import Enrolment, EnrolmentRefused, _verified, new_tls_key
from hypermesh_trustchain import tls_leaves
from hypermesh_trustchain.roots import CLUSTER, Root, generate

NOW = datetime.datetime.now(datetime.UTC)
ROOT, OTHER = (generate("hypermesh-system", NOW) for _ in range(2))
KEY, TLS = falcon.generate(), new_tls_key()


def answer(root: Root, tls: ec.EllipticCurvePrivateKey = TLS, age: int = 0, key: falcon.KeyPair = KEY) -> pb.Enrolment:
    began = int(NOW.timestamp()) - 60 - age
    body = pb.CertificateBody(
        version=certificates.VERSION,
        algorithm=certificates.FALCON,
        subject_key=key.public,
        role=pb.ROLE_NODE,
        subject="node-1",
        federation=root.federation,
        cluster=CLUSTER,
        cluster_uid="7b7a7e5c-0000-4000-8000-000000000000",
        not_before=began,
        not_after=began + 3600,
        issuer=root.falcon.key_id(),
        serial=os.urandom(certificates.SERIAL_BYTES),
    )
    chain = tls_leaves.issue(root, tls.public_key(), ["node-1"], "node", NOW, datetime.timedelta(hours=1))
    return pb.Enrolment(
        certificate=certificates.issue(root.falcon.secret, body),
        tls_chain=chain,
        tls_root=root.ca_pem,
        root_public_key=root.falcon.public,
    )


def believed(given: pb.Enrolment) -> Enrolment:
    return _verified(given, ROOT.ca_pem, ROOT.falcon.public, KEY, TLS)


def refusal(given: pb.Enrolment) -> str:
    with pytest.raises(EnrolmentRefused) as caught:
        believed(given)
    return caught.value.reason


def test_an_answer_of_our_root_is_believed() -> None:
    enrolment = believed(answer(ROOT))
    assert enrolment.key_id == KEY.key_id()
    assert (enrolment.root_public, enrolment.tls_root) == (ROOT.falcon.public, ROOT.ca_pem)


def test_an_answer_that_brings_its_own_root_is_not() -> None:
    assert refusal(answer(OTHER)) == "RootForeign"


def test_nor_one_that_only_says_it_is_of_our_root() -> None:
    forged = answer(OTHER)
    forged.root_public_key, forged.tls_root = ROOT.falcon.public, ROOT.ca_pem
    assert refusal(forged) == "WrongIssuer"
    half = answer(ROOT)
    half.tls_root = OTHER.ca_pem
    assert refusal(half) == "RootForeign"


@pytest.mark.parametrize(("age", "reason"), [(-3600, "NotYetValid"), (7200, "Expired")])
def test_nor_one_out_of_its_time_and_that_is_told_as_a_refusal(age: int, reason: str) -> None:
    assert refusal(answer(ROOT, age=age)) == reason


def test_nor_one_for_keys_of_somebody_else() -> None:
    assert refusal(answer(ROOT, key=falcon.generate())) == "AnswerForeign"
    assert refusal(answer(ROOT, tls=new_tls_key())) == "AnswerForeign"
