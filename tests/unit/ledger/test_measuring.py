"""A validator's own side of network place: whom it measures, how many at once, and what it tells until when."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from hypermesh import falcon, places
from hypermesh.operations import canonical
from hypermesh.v1 import ledger_pb2, trust_pb2, votes_pb2
from hypermesh_clients.places import Measured, _session
from hypermesh_ledger import keys, measuring
from hypermesh_ledger.execution.places import COUNTED
from hypermesh_ledger.execution.validators import address_of
from hypermesh_ledger.measuring import Places
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.state import Memory

from ...adversary.places import Aborted, Node, between
from ...builders import Member, TrustRoot, member

CHAIN, EPOCH = "hypermesh-test", 30
KEYS = [bytes([number]) * 1952 for number in range(4)]
ME = address_of(KEYS[0])
BUSY, NOT_HERE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION
KNOWN, DENIED = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.PERMISSION_DENIED


class Here:
    """A validator among four, and the state it reads."""

    def __init__(self, *members: Member) -> None:
        self.registry = CollectorRegistry()
        self.state = Memory(
            {
                keys.CHAIN_ID: CHAIN.encode(),
                keys.EPOCH: canonical(ledger_pb2.Epoch(number=EPOCH, beacon=b"b" * 32)),
                keys.EXTENSIONS: canonical(votes_pb2.Extensions(enable_height=1)),
                keys.signers(1): canonical(votes_pb2.SigningSet(consensus_keys=KEYS)),
            }
        )
        for each in members:
            self.enrol(each)
        self.validator = Places(ME, Metrics(self.registry), lambda: self.state)

    def enrol(self, who: Member) -> None:
        record = ledger_pb2.NodeRecord(key_id=who.key_id, certificate=who.certificate)
        self.state.write({keys.node(who.key_id): canonical(record)})

    def place(self, node: Member, epoch: int, validator: bytes = ME) -> list[tuple[bytes, bytes | None]]:
        bound = votes_pb2.PlaceRecord.Bound(validator=validator, microseconds=5, epoch=epoch)
        return [(keys.place(node.key_id), canonical(votes_pb2.PlaceRecord(node=node.key_id, bounds=[bound])))]

    def counted(self, outcome: str) -> float | None:
        return self.registry.get_sample_value("hypermesh_ledger_place_sessions_total", {"outcome": outcome})


@pytest.fixture(scope="module")
def trust() -> TrustRoot:
    return TrustRoot()


@pytest.fixture(scope="module")
def node(trust: TrustRoot) -> Member:
    return member(trust, trust_pb2.ROLE_NODE, "node-1")


def honest(node: Member) -> Node:
    return Node(node.keypair, CHAIN)


async def test_the_agents_side_and_the_validators_find_the_same(node: Member) -> None:
    here, found = Here(node), []

    async def caller(end: Any) -> None:
        found.append(await _session(end, node.keypair, CHAIN))

    assert await between(here.validator, caller) is None
    (trip,) = here.validator.told()
    assert (trip.node, trip.epoch) == (node.key_id, EPOCH)
    assert found in ([], [Measured(ME, trip.microseconds, EPOCH)])
    assert here.counted("measured") == 1


async def test_a_node_that_waits_seems_farther_and_one_slow_round_does_not_count(node: Member) -> None:
    class Slow(Node):
        async def answer(self, number: int, challenge: bytes) -> bytes:
            await asyncio.sleep(0.05 if number else 0.2)
            return await super().answer(number, challenge)

    here = Here(node)
    began = time.monotonic()
    assert await between(here.validator, Slow(node.keypair, CHAIN)) is None
    (trip,) = here.validator.told()
    assert 50_000 <= trip.microseconds <= (time.monotonic() - began) * 1_000_000 / places.ROUNDS


async def test_a_bound_is_told_until_the_state_has_it_or_nobody_would_take_it(node: Member) -> None:
    here = Here(node)
    assert await between(here.validator, honest(node)) is None
    here.validator.committed(here.place(node, EPOCH, validator=b"o" * 20))
    here.validator.committed(here.place(node, EPOCH - 6))
    here.validator.committed([(keys.place(node.key_id), None), (b"x", b"y")])
    assert len(here.validator.told()) == 1
    here.validator.committed(here.place(node, EPOCH))
    assert here.validator.told() == []
    assert await between(here.validator, honest(node)) is None
    here.state.write({keys.EPOCH: canonical(ledger_pb2.Epoch(number=EPOCH + 1))})
    assert len(here.validator.told()) == 1
    here.state.write({keys.EPOCH: canonical(ledger_pb2.Epoch(number=EPOCH + 2))})
    assert here.validator.told() == []


async def test_a_fresh_bound_is_not_measured_again_and_an_old_one_is(node: Member) -> None:
    here = Here(node)
    assert await between(here.validator, honest(node)) is None
    refused = await between(here.validator, honest(node))
    assert refused is not None and refused.code is KNOWN  # noqa: PT018
    for epoch, again in (
        (EPOCH, False),
        (EPOCH - places.MEASURED_AGAIN + 1, False),
        (EPOCH - places.MEASURED_AGAIN, True),
    ):
        here = Here(node)
        here.state.write(dict(here.place(node, epoch)))
        refused = await between(here.validator, honest(node))
        assert (refused is None) is again


async def test_only_one_of_three_or_more_who_extend_votes_measures(node: Member) -> None:
    for changes in (
        {keys.EXTENSIONS: None},
        {keys.signers(1): canonical(votes_pb2.SigningSet(consensus_keys=KEYS[1:]))},
        {keys.signers(1): canonical(votes_pb2.SigningSet(consensus_keys=KEYS[:2]))},
    ):
        here = Here(node)
        here.state.write(changes)  # type: ignore[arg-type]
        refused = await between(here.validator, honest(node))
        assert refused is not None and refused.code is NOT_HERE  # noqa: PT018
        assert here.validator.told() == []


async def test_who_says_nothing_is_given_up_and_frees_its_place(node: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(measuring, "HELLO_S", 0.05)
    monkeypatch.setattr(measuring, "CALLERS", 2)
    here = Here(node)
    both = asyncio.gather(*(between(here.validator, silent) for _ in range(2)))
    await asyncio.sleep(0)
    third = await between(here.validator, silent)
    assert third is not None and third.code is BUSY  # noqa: PT018
    assert {ended.code for ended in await both if ended} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    monkeypatch.setattr(measuring, "HELLO_S", 30)
    assert await between(here.validator, honest(node)) is None


async def test_few_are_measured_at_once_and_each_node_once(
    trust: TrustRoot, node: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    class Waits(Node):
        async def answer(self, number: int, challenge: bytes) -> bytes:
            await go_on.wait()
            return await super().answer(number, challenge)

    monkeypatch.setattr(measuring, "SESSIONS", 1)
    other = member(trust, trust_pb2.ROLE_NODE, "node-2")
    here = Here(node, other)
    first = asyncio.create_task(between(here.validator, Waits(node.keypair, CHAIN)))
    async with asyncio.timeout(30):
        while not here.validator._under_way:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for again in (node, other):
        refused = await between(here.validator, honest(again))
        assert refused is not None and refused.code is BUSY  # noqa: PT018
    go_on.set()
    assert await first is None
    assert await between(here.validator, honest(other)) is None
    monkeypatch.setattr(measuring, "WAITING", 2)
    third = member(trust, trust_pb2.ROLE_NODE, "node-3")
    here.enrol(third)
    refused = await between(here.validator, honest(third))
    assert refused is not None and refused.code is BUSY  # noqa: PT018


async def test_an_extension_has_few_drawn_by_the_beacon(trust: TrustRoot) -> None:
    nodes = [member(trust, trust_pb2.ROLE_NODE, f"node-{number}") for number in range(COUNTED + 4)]
    here = Here(*nodes)
    for each in nodes:
        assert await between(here.validator, honest(each)) is None
    first = [each.node for each in here.validator.told()]
    assert len(first) == len(set(first)) == COUNTED
    assert first == [each.node for each in here.validator.told()]
    here.state.write({keys.EPOCH: canonical(ledger_pb2.Epoch(number=EPOCH, beacon=b"c" * 32))})
    assert first != [each.node for each in here.validator.told()]


async def test_services_and_ended_certificates_are_not_measured(trust: TrustRoot) -> None:
    operator = member(trust, trust_pb2.ROLE_OPERATOR, "operator")
    ended = member(trust, trust_pb2.ROLE_NODE, "ended", not_before=int(time.time()) - 7_200, lifetime_s=3_600)
    stranger = member(trust, trust_pb2.ROLE_NODE, "stranger")
    here = Here(operator, ended)
    for who, text in ((operator, "no such node"), (ended, "certificate"), (stranger, "no such node")):
        refused = await between(here.validator, honest(who))
        assert isinstance(refused, Aborted)
        assert refused.code is DENIED
        assert text in str(refused)
    assert here.counted("failed") == 3
    assert falcon.key_id(operator.keypair.public) == operator.key_id
