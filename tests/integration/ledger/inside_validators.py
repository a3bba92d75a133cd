"""Four validators on four machines' worth of network: grown from one, one gone, two gone, and nothing lost."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_ledger.supervisor import EX_CONFIG, STALL_S
from kubectl_hypermesh.ledger import validators

from ..ledger_fixture import PROGRAM, START_S
from .four_ledgers import COUNT, run
from .grown import EARLY, Grown

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_right_after_growing_the_first_is_not_missed(grown: Grown) -> None:
    """The only one that all others knew when they started."""
    first, *others = grown.places
    await first.kill()
    for place in others:
        await grown.commit(place, 1)
    await first.start()
    newest = await others[0].until(lambda _: True, "answer")
    await first.until(lambda status: status.height >= newest.height, "catching up")


async def test_one_has_grown_to_four(grown: Grown) -> None:
    for place in grown.places:
        await grown.commit(place, 1)
    await grown.sound()
    seats = await grown.places[3].seats()
    assert set(seats) == {f"hypermesh-ledger-{number}" for number in range(COUNT)}
    joined = sorted(each.joined_height for each in seats.values())
    assert joined[0] < joined[1] == joined[2] == joined[3], "the set went from one to four in one block"


async def test_each_sees_four_that_sign(grown: Grown) -> None:
    """What `kubectl hypermesh ledger status` and `validators` show of them."""
    for place in grown.places:
        for _ in range(240):
            found = await place.client.inspect()
            if all(each.signed_blocks for each in found.standings):
                break
            await asyncio.sleep(0.5)
        assert len(found.standings) == COUNT
        assert found.peers == COUNT - 1
        assert found.consensus_height > 1
        assert list(found.not_ready) == []
        listed = validators.summarize(await place.client.validators(), list(found.standings), {})
        assert {each["name"] for each in listed} == {f"hypermesh-ledger-{number}" for number in range(COUNT)}
        assert all(each["power"] > 0 and each["signedBlocks"] > 0 for each in listed)


async def test_one_killed_is_not_missed_and_comes_back(grown: Grown) -> None:
    *others, victim = grown.places
    await victim.kill()
    for place in others:
        await grown.commit(place)
    seen = validators.summarize(
        await others[0].client.validators(), list((await others[0].client.inspect()).standings), {}
    )
    assert {each["name"]: each["signedLast"] for each in seen}[f"hypermesh-ledger-{victim.number}"] is False
    await victim.start()
    newest = await others[0].until(lambda _: True, "answer")
    await victim.until(lambda status: status.height >= newest.height, "catching up")
    await grown.sound()


async def test_a_backup_from_before_it_grew_signs_nothing_a_second_time(grown: Grown) -> None:
    """Restored, the first would think itself alone, and make the blocks again that all four have made since."""
    victim, *others = grown.places
    await victim.stop()
    home, aside = victim.directory / "home", victim.directory / "aside"
    home.rename(aside)
    run(*PROGRAM, "restore", str(victim.directory.parent / EARLY), "--home", str(home))
    signed = (home / "data" / "priv_validator_state.json").read_bytes()
    await victim.start()
    assert victim.process is not None
    async with asyncio.timeout(2 * START_S):
        assert await victim.process.wait() == EX_CONFIG, victim.log[-3000:]
    assert "an older copy" in victim.log
    assert (home / "data" / "priv_validator_state.json").read_bytes() == signed
    shutil.rmtree(home)
    aside.rename(home)
    for place in others:
        await grown.commit(place, 1)
    await victim.start()
    newest = await others[0].until(lambda _: True, "answer")
    await victim.until(lambda status: status.height >= newest.height, "catching up")
    await grown.sound()


async def test_one_paused_is_not_missed_and_comes_back(grown: Grown) -> None:
    first, victim, *others = grown.places
    victim.pause()
    try:
        for place in (first, *others):
            await grown.commit(place, 2)
    finally:
        victim.resume()
    await grown.sound()


async def test_with_two_gone_the_chain_waits_and_goes_on_without_loss(grown: Grown) -> None:
    one, two, three, four_ = grown.places
    await three.kill()
    await four_.kill()
    await asyncio.sleep(5)  # what was under way ends
    before = [await one.until(lambda _: True, "answer"), await two.until(lambda _: True, "answer")]
    restarts = [place.log.count("starting both again") for place in (one, two)]
    key_id, tx = await one.enrolment(grown.root, "submitted-in-vain")
    async with asyncio.timeout(STALL_S + 60):
        for patience_s in (2.0, 120.0):  # by its own deadline, or by the ledger's
            with pytest.raises(LedgerUnavailable, match=f"newest block here, {before[0].height}, is"):
                await one.client.submit(tx, timeout=patience_s)
    await asyncio.sleep(5)  # longer than a lone validator would be left alone
    still = [await one.until(lambda _: True, "answer"), await two.until(lambda _: True, "answer")]
    assert [each.height for each in before] == [each.height for each in still]
    assert [place.log.count("starting both again") for place in (one, two)] == restarts
    await three.start()
    await one.until(lambda status: status.height > still[0].height, "block with three of four")
    commits = [await place.insist(tx) for place in (one, two, three)]
    assert len({each.height for each in commits}) == 1, "committed once, wherever it is submitted again"
    grown.committed.add(key_id)
    await grown.commit(one)
    await four_.start()
    newest = await one.until(lambda _: True, "answer")
    await four_.until(lambda status: status.height >= newest.height, "catching up")
    await grown.sound()
