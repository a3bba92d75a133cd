"""What a node and the validator that measures it say to each other."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from hypermesh import falcon, places
from hypermesh.operations import canonical
from hypermesh.v1 import ledger_pb2, place_pb2, trust_pb2, votes_pb2
from hypermesh_clients.places import NotMeasured, _session
from hypermesh_ledger import keys
from hypermesh_ledger.execution.validators import address_of
from hypermesh_ledger.measuring import Places
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.state import Memory

from ..adversary.places import Aborted
from ..builders import TrustRoot, member

CHAIN, SECRET = "hypermesh-fuzz", b"s" * 32
KEYS = [bytes([number]) * 1952 for number in range(4)]


class _Stuck:
    """Whoever is at the other end says the same again and again."""

    def __init__(self, said: Any) -> None:
        self._said = said

    async def read(self) -> Any:
        return self._said

    async def write(self, message: Any) -> None:
        assert message.ByteSize() < 4096

    async def abort(self, code: Any, details: str) -> None:
        assert details
        raise Aborted(code, details)


@cache
def _pair() -> falcon.KeyPair:
    return falcon.generate()


@cache
def _validator() -> tuple[Places, bytes]:
    node = member(TrustRoot(), trust_pb2.ROLE_NODE, "node-1")
    record = ledger_pb2.NodeRecord(key_id=node.key_id, certificate=node.certificate)
    state = Memory(
        {
            keys.CHAIN_ID: CHAIN.encode(),
            keys.EXTENSIONS: canonical(votes_pb2.Extensions(enable_height=1)),
            keys.signers(1): canonical(votes_pb2.SigningSet(consensus_keys=KEYS)),
            keys.node(node.key_id): canonical(record),
        }
    )
    return Places(address_of(KEYS[0]), Metrics(CollectorRegistry()), lambda: state), node.key_id


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def place_request(data: bytes) -> None:
    """A node's word at any step: without the node's key and secret nobody is measured."""
    heard = place_pb2.MeasureRequest()
    try:
        heard.ParseFromString(data)
    except DecodeError:
        return
    validator, _ = _validator()
    try:
        _loop().run_until_complete(validator.measure(_Stuck(heard)))
    except Aborted:
        assert validator.told() == []
    else:
        raise AssertionError("measured by a message without a key")
    rounds = [places.Round(b"c" * 32, heard.answer, 5)] * places.ROUNDS
    for committed in (heard.hello.commitment, places.commitment(SECRET)):
        try:
            places.least_us(committed, heard.secret, rounds)
        except places.PlaceUnproven:
            continue
        raise AssertionError("one answer fits no two rounds")


def place_response(data: bytes) -> None:
    """A ledger's word at any step: the node gives up, whatever it was."""
    heard = place_pb2.MeasureResponse()
    try:
        heard.ParseFromString(data)
    except DecodeError:
        return
    try:
        _loop().run_until_complete(_session(_Stuck(heard), _pair(), CHAIN))
    except NotMeasured:
        return
    raise AssertionError("measured by one message")


PLACE_TARGETS = {target.__name__: target for target in (place_request, place_response)}


def place_seeds() -> dict[str, list[bytes]]:
    """One of each step."""
    _, node = _validator()
    said, heard = place_pb2.MeasureRequest, place_pb2.MeasureResponse
    hello = said.Hello(node=node, commitment=places.commitment(SECRET), signature=bytes(falcon.SIGNATURE_BYTES))
    requests = [said(hello=hello), said(answer=b"a" * 32), said(secret=SECRET)]
    greeting = heard.Greeting(validator=b"v" * 20, nonce=b"n" * 32)
    bound = heard.Bound(microseconds=700, epoch=7)
    responses = [heard(greeting=greeting), heard(challenge=b"c" * 32), heard(seed=b"e" * 32), heard(bound=bound)]
    return {
        "place_request": [each.SerializeToString() for each in requests],
        "place_response": [each.SerializeToString() for each in responses],
    }
