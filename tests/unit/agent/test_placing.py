"""The agent's side of network place: whom it calls, when again, and that nothing else hangs on it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from hypermesh import places
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.placing import Placing, addresses_of
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.places import Measured, NotMeasured, StillFresh

NODE = b"n" * 32
TARGETS = [f"[fd00::{number}]:7450" for number in range(1, 5)]


class Copy(Mirror):
    """A mirror whose epochs the test makes."""

    def __init__(self, epoch: int) -> None:
        super().__init__(cast(Any, None))
        genesis = ledger_pb2.Genesis(proofs=proofs_pb2.ProofParameters(epoch_ms=1))
        self.show(status=ledger_pb2.StatusResponse(chain_id="c", genesis=genesis))
        self.at(epoch)
        self.synced.set()

    def at(self, epoch: int) -> None:
        self.show(epoch=ledger_pb2.Epoch(number=epoch))

    def show(self, **record: Any) -> None:
        self._view.apply(ledger_pb2.Change(**record))
        self._wake()


class Ledgers:
    """What each answers, and who was called."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.targets = TARGETS
        self.called: list[str] = []
        self.answers: dict[str, Exception] = {}

    async def session(self, target: str) -> Measured:
        self.called.append(target)
        if target in self.answers:
            raise self.answers[target]
        return Measured(b"v" * 20, 700 + len(self.called), self.epoch)

    async def resolve(self, name: str) -> list[str]:
        return self.targets if name == "ledgers:7450" else []


def placing(ledgers: Ledgers, mirror: Copy) -> Placing:
    return Placing(mirror, NODE, "ledgers:7450,elsewhere:7450", ledgers.session, ledgers.resolve)


async def test_all_ledgers_are_called_and_again_when_bounds_get_old() -> None:
    ledgers, mirror = Ledgers(100), Copy(100)
    part = placing(ledgers, mirror)
    await part.round()
    assert ledgers.called == TARGETS
    assert part.validators() == 4
    assert part.nearest_s() == 701 / 1e6
    mirror.at(100 + places.MEASURED_AGAIN - 1)
    await part.round()
    assert len(ledgers.called) == 4
    mirror.at(100 + places.MEASURED_AGAIN)
    await part.round()
    assert len(ledgers.called) == 8


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_too_few_ledgers_are_not_called(count: int) -> None:
    ledgers = Ledgers(100)
    ledgers.targets = TARGETS[:count]
    await placing(ledgers, Copy(100)).round()
    assert ledgers.called == []


async def test_a_refusal_is_told_once_and_tried_in_each_epoch(caplog: pytest.LogCaptureFixture) -> None:
    ledgers, mirror = Ledgers(100), Copy(100)
    ledgers.answers = {TARGETS[0]: NotMeasured("busy"), TARGETS[1]: StillFresh("known")}
    part = placing(ledgers, mirror)
    with caplog.at_level(logging.INFO):
        for epoch in (100, 101, 102):
            mirror.at(epoch)
            await part.round()
    assert ledgers.called == [*TARGETS, TARGETS[0], TARGETS[0]], "who has a fresh bound is left alone, too"
    assert caplog.text.count("busy") == 1
    assert part.validators() == 3


async def test_it_begins_when_the_node_is_enrolled_and_goes_on_with_the_epochs() -> None:
    ledgers, mirror = Ledgers(100), Copy(100)
    running = asyncio.create_task(placing(ledgers, mirror).run())
    try:
        mirror.at(101)
        await asyncio.sleep(0.05)
        assert ledgers.called == []
        mirror.show(node=ledger_pb2.NodeRecord(key_id=NODE))
        await until(lambda: len(ledgers.called) == 4)
        mirror.at(101 + places.MEASURED_AGAIN)
        await until(lambda: len(ledgers.called) == 8)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(true: Any) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_epoch_that_a_ledger_makes_up_spares_it_no_call() -> None:
    ledgers, mirror = Ledgers((1 << 64) - 1), Copy(100)
    part = placing(ledgers, mirror)
    await part.round()
    mirror.at(100 + places.MEASURED_AGAIN)
    await part.round()
    assert len(ledgers.called) == 8


async def test_names_lead_to_addresses() -> None:
    assert await addresses_of("[::1]:7450") == ["[::1]:7450"]
    for wrong in ("", "nothing", "[::1]:x", "no-such-host.invalid:7450"):
        assert await addresses_of(wrong) == []
