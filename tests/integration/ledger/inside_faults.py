"""A network between four validators that fails: one cut off, two halves, one far away on a wire that loses packets."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from hypermesh_clients.ledger import LedgerUnavailable

from .faults import delay, drops
from .four_ledgers import LIMIT_S
from .grown import Grown

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_S = 6.0
FAR_MS = 100


async def test_one_cut_off_is_not_missed_tells_its_clients_so_and_comes_back(grown: Grown) -> None:
    *others, victim = grown.places
    restarts = victim.log.count("starting both again")
    with drops(victim, others):
        for place in others:
            await grown.commit(place, 2)
        before = await victim.until(lambda _: True, "answer")
        key_id, tx = await victim.enrolment(grown.root, "submitted-to-one-cut-off")
        with pytest.raises(LedgerUnavailable, match="submit the same bytes again, also to another ledger"):
            await victim.client.submit(tx, timeout=PATIENCE_S)
        async with asyncio.timeout(LIMIT_S):
            while "0 of 3 peers answer" not in (said := await victim.readiness()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert "no block for" in said
        newest = await others[0].until(lambda status: status.height > before.height + 3, "blocks of three")
        still = await victim.until(lambda _: True, "answer")
        assert still.height == before.height
    commits = [await place.insist(tx) for place in (others[0], victim)]
    assert commits[0].height == commits[1].height > newest.height
    grown.committed.add(key_id)
    await grown.sound()
    assert victim.log.count("starting both again") <= restarts + 1


async def test_two_halves_stand_and_are_one_chain_again(grown: Grown) -> None:
    one, two, three, four_ = grown.places
    with drops(one, [three, four_]), drops(two, [three, four_]):
        sent = [await place.enrolment(grown.root, f"half-{place.number}") for place in (one, three)]
        for place, (_, tx) in zip((one, three), sent, strict=True):
            # a block that was agreed before may still take it
            with contextlib.suppress(LedgerUnavailable):
                await place.client.submit(tx, timeout=PATIENCE_S)
        key_id, tx = await four_.enrolment(grown.root, "half-four")
        before = [await place.until(lambda _: True, "answer") for place in grown.places]
        with pytest.raises(LedgerUnavailable, match="no block decided it"):
            await four_.client.submit(tx, timeout=PATIENCE_S)
        after = [await place.until(lambda _: True, "answer") for place in grown.places]
        assert [each.height for each in before] == [each.height for each in after]
    for place, (enrolled, each) in ((one, sent[0]), (three, sent[1]), (four_, (key_id, tx))):
        await place.insist(each)
        grown.committed.add(enrolled)
    await grown.sound()


async def test_one_far_away_on_a_lossy_wire_takes_part(grown: Grown) -> None:
    first, victim, *others = grown.places
    async with delay(victim, FAR_MS):
        with drops(victim, [first, *others], percent=5):
            for place in grown.places:
                await grown.commit(place, 2)
            started = time.monotonic()
            newest = await first.until(lambda _: True, "answer")
            await victim.until(lambda status: status.height >= newest.height, "the others' blocks")
            assert time.monotonic() - started >= 2 * FAR_MS / 1000, "the wire was not slow"
    await grown.sound()
