"""Decoders of bytes that strangers send, as `target(data)`: it returns, or what it raises is a finding.

A target expects the refusals that its decoder promises and checks what must hold of everything it accepts. The same
targets run under a coverage-guided fuzzer (run.py, `make fuzz`) and, briefly, in tests/unit/fuzz.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from ipaddress import IPv6Network

from google.protobuf.message import DecodeError

from hypermesh import addressing, batches, certificates, keyfile, operations, quantities
from hypermesh.proofs import ProofRefused, verify_space, verify_time, verify_work
from hypermesh.proofs.parameters import DEMO
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, resource_pb2, trust_pb2
from hypermesh_agent.serving.authorization import ADDRESS_KEY, TOKEN_KEY, Denied, Desk, Served, check_range
from hypermesh_clients.mirror import View
from hypermesh_ledger.abci import framing
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_native import read_envelope
from hypermesh_trustchain.challenges import Challenges
from hypermesh_trustchain.enrolling import check_key
from hypermesh_trustchain.refusals import EnrolmentRefused

from .gossip_targets import GOSSIP_TARGETS
from .ledger_targets import LEDGER_TARGETS
from .place_targets import PLACE_TARGETS
from .vote_targets import VOTE_TARGETS

NODE = hashlib.sha256(b"node").digest()
PREFIX = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
ADDRESS = PREFIX.network_address + 0x40_0000_0001
FORM = {
    Reason.Malformed,
    Reason.TooLarge,
    Reason.NotCanonical,
    Reason.UnsupportedAlgorithm,
    Reason.BadSignature,
    Reason.SpaceTicketMissing,
    Reason.StakeTicketMissing,
    Reason.WorkTicketMissing,
    Reason.TimeTicketMissing,
}


def said(reason: object, message: str) -> None:
    """A refusal has a reason of those expected, and a sentence."""
    assert reason, message
    assert message


def refused_inside(read: operations.Read) -> bool:
    """Whether an envelope that is read is refused for the operation or the tickets in it."""
    try:
        operations.decoded(b"", read)
    except Refused:
        return True
    return False


def operation(data: bytes) -> None:
    """A transaction: whatever is accepted has exactly this encoding, and a path that leads to some root.

    What the compiled reader reads is what Python reads.
    """
    known = read_envelope(data)
    try:
        decoded = operations.decode(data)
    except Refused as refusal:
        said(refusal.reason in FORM, refusal.message)
        assert known is None or refused_inside(operations.Read(*known))
        return
    assert known is not None
    assert operations.Read(*known) == decoded.read
    assert operations.canonical(decoded.envelope) == data
    assert operations.canonical(decoded.operation) == decoded.envelope.operation
    assert batches.well_formed(decoded.envelope.batch_index, decoded.envelope.batch_path)
    assert all(isinstance(part, bytes) for part in operations.signed_parts(decoded.envelope))


def abci_framing(data: bytes) -> None:
    """A stream of requests: each one read is written again as CometBFT would read it."""

    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        with contextlib.suppress(ValueError, DecodeError, asyncio.IncompleteReadError):
            while (request := await framing.read_request(reader)) is not None:
                response = abci.Response(echo=abci.ResponseEcho(message=request.echo.message))
                again = asyncio.StreamReader()
                again.feed_data(framing.encode_response(response))
                again.feed_eof()
                assert await framing.read_request(again) is not None

    loop = _loop()
    loop.run_until_complete(read())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def proofs(data: bytes) -> None:
    """A Prove's parts against a challenge that nobody has answered: refused, each in its own words."""
    message = ledger_pb2.Prove()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return
    checks: list[Callable[[], None]] = [lambda: verify_space(NODE, NODE, message.space, DEMO)]
    checks += [lambda each=each: verify_work(NODE, NODE, NODE, NODE, each, DEMO) for each in message.work]  # type: ignore[misc]
    checks += [lambda: verify_time(NODE, message.time, DEMO)]
    for check in checks:
        try:
            check()
        except ProofRefused as refusal:
            said(Reason(refusal.reason), refusal.message)
        else:
            raise AssertionError("a proof of nothing was accepted")


def address(data: bytes) -> None:
    """Sixteen bytes or text: what is accepted is put together again to the same address."""
    for form in (data, data[:16].ljust(16, b"\0"), b"\xfd" + data[:15].ljust(15, b"\0"), data.decode("latin-1")):
        try:
            fields = addressing.parse(form)
        except addressing.AddressError as error:
            said(True, str(error))
            continue
        assert addressing.parse(fields.address) == fields
        assert fields.address in fields.node_prefix
        assert isinstance(form, str) or fields.address.packed == form


def certificate(data: bytes) -> None:
    """A certificate, and the same bytes as the body of one."""
    outer = trust_pb2.Certificate()
    with contextlib.suppress(DecodeError):
        outer.ParseFromString(data)
    inner = trust_pb2.Certificate(body=data, algorithm=certificates.FALCON, signature=bytes(1280))
    for each in (outer, inner):
        try:
            body = certificates.decode(each)
        except certificates.CertificateInvalid as invalid:
            said(invalid.reason, invalid.message)
            continue
        assert body.SerializeToString(deterministic=True) == each.body
        addressing.node_prefix(body.federation, body.cluster, NODE, body.node_counter)


def changes(data: bytes) -> None:
    """What a follower is sent: any sequence of records makes a view."""
    batch = ledger_pb2.Changes()
    try:
        batch.ParseFromString(data)
    except DecodeError:
        return
    view = View()
    for change in batch.changes:
        view.apply(change)


def amounts(data: bytes) -> None:
    """Quantities, prices and durations of manifests: exact, and read again from what they are rendered to."""
    text = data.decode("utf-8", "replace")
    for resource in (quantities.CORES, "memory"):
        with contextlib.suppress(quantities.QuantityInvalid):
            amount = quantities.parse(resource, text)
            assert amount >= 0
            if amount.bit_length() < 128:  # what is beyond every field of the ledger is refused there
                assert quantities.parse(resource, quantities.render(resource, amount)) == amount
                assert quantities.render_short(resource, amount)
    with contextlib.suppress(quantities.QuantityInvalid):
        grains = quantities.parse_caesar(text)
        assert quantities.parse_caesar(quantities.render_caesar(grains)) == grains
    with contextlib.suppress(quantities.QuantityInvalid):
        assert str(quantities.parse_grains(text)) == text
    with contextlib.suppress(quantities.QuantityInvalid):
        assert quantities.parse_duration(text) >= 0


def resource(data: bytes) -> None:
    """Metadata and messages of the resource service: a Denied, or a range inside the region."""
    desk = Desk("node-1", PREFIX)
    token = hashlib.sha256(b"token").digest()
    served = Served(ADDRESS.packed, token, 3, 1 << 20, 1 << 40, "node-1", "mem-0", dict, _Region())  # type: ignore[arg-type]
    desk.open(served)
    first, _, rest = data.partition(b"\n")
    said: list[list[tuple[str, str | bytes]]] = [
        [(ADDRESS_KEY, first.decode("latin-1")), (TOKEN_KEY, rest.decode("latin-1"))],
        [(ADDRESS_KEY, str(ADDRESS)), (TOKEN_KEY, b"Bearer " + rest)],
        [(first.decode("latin-1"), rest)],
    ]
    for metadata in said:
        with contextlib.suppress(Denied):
            desk.authorize(metadata, 0)
            assert rest.lower().endswith(b"token")
    for request in (resource_pb2.ReadRequest(), resource_pb2.WriteRequest(), resource_pb2.DescribeRequest()):
        with contextlib.suppress(DecodeError):
            request.ParseFromString(data)
            length = request.length if isinstance(request, resource_pb2.ReadRequest) else len(data)
            offset = 0 if isinstance(request, resource_pb2.DescribeRequest) else request.offset
            with contextlib.suppress(Denied):
                check_range(served, offset, length)
                assert 0 <= offset <= offset + length <= _Region.size


class _Region:
    """Only its size matters: nothing is read."""

    size = 1 << 20


def key_file(data: bytes) -> None:
    """A key file of another machine: refused, never opened."""
    for blob in (data, keyfile.wrap(b"secret", NODE)[:6] + data):
        try:
            keyfile.unwrap(blob, NODE)
        except (keyfile.KeyFileInvalid, keyfile.WrongKey):
            continue
        raise AssertionError("opened without its key")


def enrolment(data: bytes) -> None:
    """What a stranger sends to TrustChain before anything about it is known."""
    request, answer = trust_pb2.EnrolmentRequest(), trust_pb2.EnrolmentProof()
    with contextlib.suppress(DecodeError):
        request.ParseFromString(data)
    with contextlib.suppress(DecodeError):
        answer.ParseFromString(data)
    for algorithm in (request.algorithm, certificates.FALCON):
        with contextlib.suppress(EnrolmentRefused):
            check_key(request.public_key, algorithm)
    for nonce in (answer.nonce, data[:32]):
        try:
            Challenges(NODE).check(nonce, NODE, 1 << 40)
        except EnrolmentRefused:
            continue
        raise AssertionError("a nonce that nobody made was taken")


_OWN: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        operation,
        abci_framing,
        proofs,
        address,
        certificate,
        changes,
        amounts,
        resource,
        key_file,
        enrolment,
    )
}
TARGETS = _OWN | LEDGER_TARGETS | VOTE_TARGETS | PLACE_TARGETS | GOSSIP_TARGETS
