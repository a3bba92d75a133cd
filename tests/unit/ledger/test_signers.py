"""Who may speak at all: chain, time, key, certificate, enrolment."""

from __future__ import annotations

from hypermesh import falcon, operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, trust_pb2

from ...builders import Member, TrustRoot, member
from .world import Settled, World

NODE, OPERATOR = trust_pb2.ROLE_NODE, trust_pb2.ROLE_OPERATOR


def enrolment(world: World, new: Member, signer: Member | None = None) -> bytes:
    return world.tx(signer or new, enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))


def test_wrong_chain_and_time(settled: Settled) -> None:
    release = ledger_pb2.Release(allocation_id=b"a" * 32)
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)

    def reason(**parts: object) -> Reason | None:
        return settled.reason(settled.tx(settled.operator, refs, release=release, **parts))

    assert reason(chain_id="hypermesh-other") is Reason.WrongChain
    assert reason(valid_until_ms=settled.now_ms - 1) is Reason.Expired
    assert reason(valid_until_ms=settled.now_ms + 700_000) is Reason.ValidityTooLong
    assert reason() is Reason.NoSuchAllocation


def test_unknown_signer_and_forged_signature(settled: Settled) -> None:
    stranger = member(settled.root, OPERATOR, "stranger")
    refs = settled.refs(settled.operator, settled.node, settled.cpu_id)
    release = ledger_pb2.Release(allocation_id=b"a" * 32)
    assert settled.reason(settled.tx(stranger, refs, release=release)) is Reason.UnknownSigner
    forged = ledger_pb2.Envelope.FromString(settled.tx(stranger, refs, release=release))
    forged.signer = settled.operator.key_id
    assert settled.reason(operations.canonical(forged)) is Reason.BadSignature
    swapped = ledger_pb2.Envelope.FromString(settled.tx(settled.operator, refs, release=release))
    swapped.tickets.space = b"x" * 32
    assert settled.reason(operations.canonical(swapped)) is Reason.BadSignature


def test_enrolment_again_and_renewed(world: World) -> None:
    new = member(world.root, NODE, "node-1")
    first = world.do(enrolment(world, new))
    assert first.reason is None
    again = world.do(enrolment(world, new))
    assert (again.reason, again.height) == (None, first.height)
    renewed = Member(new.keypair, world.root.issue(new.keypair.public, NODE, "node-1", not_before=world.now_ms // 1000))
    assert world.reason(enrolment(world, renewed)) is None
    assert world.reason(enrolment(world, new)) is Reason.CertificateInvalid  # the older one, replayed


def test_certificates_that_are_not_believed(world: World) -> None:
    foreign = member(TrustRoot(), NODE, "node-1")
    assert world.reason(enrolment(world, foreign)) is Reason.CertificateInvalid
    past = member(world.root, NODE, "node-1", lifetime_s=60)
    assert world.reason(enrolment(world, past)) is Reason.CertificateInvalid
    future = member(world.root, NODE, "node-1", not_before=world.now_ms // 1000 + 3600)
    assert world.reason(enrolment(world, future)) is Reason.CertificateInvalid
    new, thief = member(world.root, NODE, "node-1"), member(world.root, NODE, "node-2")
    stolen = enrolment(world, new, signer=thief)
    assert world.reason(stolen) is Reason.BadSignature
    broken = Member(new.keypair, trust_pb2.Certificate())
    broken.certificate.CopyFrom(new.certificate)
    broken.certificate.signature = broken.certificate.signature[:-1] + b"\1"
    assert world.reason(enrolment(world, broken)) is Reason.CertificateInvalid


def test_a_certificate_that_ends_silences_its_key(settled: Settled) -> None:
    brief = settled.enrol(OPERATOR, "brief", lifetime_s=1_200)  # from ten minutes ago
    refs = settled.refs(brief, settled.node, settled.cpu_id)
    settled.block(after_ms=700_000)
    release = ledger_pb2.Release(allocation_id=b"a" * 32)
    assert settled.reason(settled.tx(brief, refs, release=release)) is Reason.CertificateInvalid


def test_a_nodes_address_part_is_its_own(world: World, monkeypatch: object) -> None:
    first = world.enrol(NODE, "node-1")
    moved = Member(
        first.keypair,
        world.root.issue(first.keypair.public, NODE, "node-1", counter=1, not_before=world.now_ms // 1000),
    )
    assert world.reason(enrolment(world, moved)) is Reason.CertificateInvalid


def test_a_taken_node_prefix_is_refused(world: World) -> None:
    """24 bits collide after some thousand keys; here the other holder is written into the state instead."""
    from hypermesh import addressing
    from hypermesh_ledger import keys

    new = member(world.root, NODE, "node-2")
    body = new.body
    network = addressing.node_prefix(body.federation, body.cluster, new.key_id, 0)
    world.state.entries[keys.prefix(network.network_address.packed[:11])] = falcon.key_id(b"other")
    assert world.reason(enrolment(world, new)) is Reason.NodeAddressTaken
    counted = Member(new.keypair, world.root.issue(new.keypair.public, NODE, "node-2", counter=1))
    assert world.reason(enrolment(world, counted)) is None


def test_trust_score_starts_at_the_genesis(world: World) -> None:
    new = world.enrol(OPERATOR, "hypermesh-operator")
    from hypermesh_ledger import keys

    record = ledger_pb2.NodeRecord.FromString(world.state.entries[keys.node(new.key_id)])
    assert record.trust_score == world.genesis.initial_trust_score
