"""What four validators say beside their votes: signed as CometBFT signs, clocks kept, faked work found."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2, votes_pb2
from hypermesh_clients.mirror import Mirror
from hypermesh_ledger import keys
from hypermesh_ledger.execution.extensions import PREFIX, recognise, sign_bytes
from hypermesh_ledger.execution.validators import address_of

from ...builders import registration
from ..ledger_fixture import Ledger
from .faking import Faker
from .four_ledgers import LIMIT_S, METRICS, PORT, Place
from .grown import Grown

pytestmark = pytest.mark.asyncio(loop_scope="session")
AGREE, DISAGREE = votes_pb2.RECHECK_OUTCOME_AGREE, votes_pb2.RECHECK_OUTCOME_DISAGREE


async def test_votes_are_extended_and_signed_as_cometbft_signs(grown: Grown) -> None:
    """The first transaction of a block, read from CometBFT, verified here with the seats' keys alone."""
    first = grown.places[0]
    begun = votes_pb2.Extensions.FromString(await first.proven(keys.EXTENSIONS))
    seats = (await first.seats()).values()
    assert begun.enable_height == max(each.joined_height for each in seats) + 2
    before, block = [await first.block(begun.enable_height + ahead) for ahead in (0, 2)]
    assert not before["data"]["txs"] or not recognise(base64.b64decode(before["data"]["txs"][0]))
    commit = votes_pb2.ExtendedCommit.FromString(base64.b64decode(block["data"]["txs"][0]).removeprefix(PREFIX))
    assert commit.height == begun.enable_height + 1
    public = {address_of(each.consensus_key): each.consensus_key for each in seats}
    voted = [each for each in block["last_commit"]["signatures"] if each["block_id_flag"] == 2]
    assert [each.address.hex().upper() for each in commit.votes] == [each["validator_address"] for each in voted]
    for each in commit.votes:
        signed = sign_bytes(block["header"]["chain_id"], commit.height, commit.round, each.extension)
        key = MLDSA65PublicKey.from_public_bytes(public[each.address])
        key.verify(each.signature, signed)
        with pytest.raises(InvalidSignature):
            key.verify(each.signature, signed + b"x")
        said = votes_pb2.VoteExtension.FromString(each.extension)
        assert abs(said.clock_ms - time.time_ns() // 1_000_000) < 600_000


async def test_clocks_come_into_the_state(grown: Grown) -> None:
    clock = votes_pb2.VoteClock.FromString(await grown.places[1].proven(keys.CLOCK))
    assert clock.clocks >= 3
    assert not clock.apart


async def test_a_faked_product_is_found_and_its_ticket_revoked(grown: Grown) -> None:
    """One number in each round of the matrix product is wrong, and not among the tiles that were opened."""
    place = grown.places[2]
    mirror = Mirror(place.client)
    following = asyncio.create_task(mirror.run())
    try:
        await mirror.wait_until(lambda: mirror.epoch.number > 0, LIMIT_S)
        ledger = Ledger(place.directory, grown.root, PORT, METRICS, b"", (), place.client, mirror)
        honest, faker = [await ledger.enrol(trust_pb2.ROLE_NODE, name) for name in ("honest", "faker")]
        cpu = {node.key_id: node.asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0") for node in (honest, faker)}
        await ledger.win_tickets(honest, [cpu[honest.key_id]])
        await ledger.win_tickets(faker, [cpu[faker.key_id]], Faker(place.directory / "faker", faker.key_id))
        won = {node: mirror.view.work_tickets[node, device] for node, device in cpu.items()}
        for node, outcome in ((honest, AGREE), (faker, DISAGREE)):
            ticket = won[node.key_id]
            record = await _all_told(place, keys.recheck(ticket.epoch, ticket.hash))
            assert {each.outcome for each in record.drawn} == {outcome}
            assert record.refuted == (outcome == DISAGREE)
        fake = faker.key_id, cpu[faker.key_id]
        await mirror.wait_until(lambda: mirror.view.work_tickets[fake].revoked, LIMIT_S)
        assert not mirror.view.work_tickets[honest.key_id, cpu[honest.key_id]].revoked
        with pytest.raises(Refused) as caught:
            await ledger.register(faker, registration(faker, ledger_pb2.ASSET_TYPE_CPU, "cpu-0", 1000))
        assert caught.value.reason is Reason.WorkTicketRevoked
        await ledger.register(honest, registration(honest, ledger_pb2.ASSET_TYPE_CPU, "cpu-0", 1000))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _all_told(place: Place, key: bytes) -> votes_pb2.RecheckRecord:
    """The record of a result once everybody who was drawn has told a verdict."""
    async with asyncio.timeout(2 * LIMIT_S):
        while True:
            record = votes_pb2.RecheckRecord.FromString(await place.proven(key))
            if record.drawn and all(each.outcome for each in record.drawn):
                return record
            await asyncio.sleep(0.5)


async def test_one_whose_application_answers_nothing_is_not_waited_for(grown: Grown) -> None:
    """Its vote and extension are missing; its CometBFT is alive."""
    *others, victim = grown.places
    victim.pause_application()
    try:
        for place in others:
            await grown.commit(place, 2)
        newest = await others[0].until(lambda _: True, "answer")
        await others[0].until(lambda status: status.height > newest.height + 3, "more blocks")
    finally:
        victim.resume()
    await grown.sound()
