"""One of four validators lies: in its proposals, by keeping them, about the state, and by signing twice.

The others are the product as it is; the liar runs lying_ledger.py, or twice. Each time the others go on, hold one
history, and nothing that it made up is in their state. The order matters: who has signed twice is out for good.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_ledger.execution.validators import address_of, possession
from hypermesh_ledger.validator_key import signer

from ...builders import allocation, member
from ..ledger_fixture import Settled
from . import lying_ledger
from .four_ledgers import COUNT, LIMIT_S, METRICS, Place, agree, places_for
from .grown import Grown
from .histories import no_fork

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXPELLED = ledger_pb2.VALIDATOR_STATE_EXPELLED
DOUBLE = ledger_pb2.MISBEHAVIOR_KIND_DUPLICATE_VOTE


@dataclass
class Liar:
    """The last of the four, with a file that says what it lies about."""

    place: Place
    lie: Path
    others: list[Place]

    @property
    def told(self) -> int:
        """How often it lied."""
        told = Path(f"{self.lie}.told")
        return len(told.read_text().splitlines()) if told.exists() else 0

    async def until_told(self, count: int) -> None:
        """Until it has lied that often since."""
        target = self.told + count
        try:
            async with asyncio.timeout(LIMIT_S):
                while self.told < target:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"it told {self.told} of {target} lies\n{self.place.log[-3000:]}") from None

    def proposes(self, *txs: bytes) -> None:
        """From its next proposal on."""
        directory = Path(f"{self.lie}.txs")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for number, tx in enumerate(txs):
            (directory / f"{number:04}").write_bytes(tx)
        self.lie.write_text("propose")

    async def others_go_on(self, grown: Grown) -> None:
        """Each of them commits, and some blocks come."""
        first = await self.others[0].until(lambda _: True, "answer")
        for place in self.others:
            await grown.commit(place, 1)
        for place in self.others:
            await place.until(lambda status: status.height > first.height + COUNT, "blocks without the liar")

    async def rejected(self) -> float:
        """Proposals that an honest ledger rejected."""
        address = f"http://[{self.others[0].address}]:{METRICS}/metrics"
        async with aiohttp.ClientSession() as session, session.get(address) as reply:
            lines = (await reply.text()).splitlines()
        return sum(
            float(line.split()[1]) for line in lines if line.startswith("hypermesh_ledger_rejected_proposals_total ")
        )

    async def refused(self) -> dict[str, float]:
        """By reason, what blocks held and an honest ledger refused."""
        address = f"http://[{self.others[0].address}]:{METRICS}/metrics"
        async with aiohttp.ClientSession() as session, session.get(address) as reply:
            lines = [line for line in (await reply.text()).splitlines() if "refused_total{" in line]
        return {line.split('"')[1]: float(line.split()[1]) for line in lines if 'where="block"' in line}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def liar(grown: Grown, tenants: Settled, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Liar]:
    """Depends on tenants, so that it can forge what they could sign."""
    *others, place = grown.places
    found = Liar(place, tmp_path_factory.mktemp("lies") / "lie", others)
    await place.stop()
    await place.start(program=(sys.executable, "-P", lying_ledger.__file__, str(found.lie)))
    await place.until(lambda status: status.height >= tenants.ledger.mirror.height, "the others' blocks")
    yield found
    found.lie.unlink(missing_ok=True)


async def test_malformed_proposals_become_no_block(grown: Grown, tenants: Settled, liar: Liar) -> None:
    correct = tenants.allocate("proposed")
    for txs in ([correct + b"\x7a\x01x"], [correct, correct], [b"\xff" * 100], [correct, b""]):
        liar.proposes(*txs)
        await liar.until_told(1)
    await liar.others_go_on(grown)
    liar.lie.unlink()
    allocation_id = operations.decode(correct).operation.allocate.allocation_id
    assert [await place.client.get_allocation(allocation_id) for place in grown.places] == [None] * COUNT
    await grown.sound()


@pytest.mark.parametrize("lie", lying_ledger.VOTES)
async def test_wrong_votes_become_no_block(grown: Grown, liar: Liar, lie: str) -> None:
    """Missing, double, not signed, or not all that the last commit counts."""
    before = await liar.rejected()
    liar.lie.write_text(lie)
    await liar.until_told(2)
    await liar.others_go_on(grown)
    liar.lie.unlink()
    assert await liar.rejected() > before
    await grown.sound()


async def test_late_votes_that_say_noise_stop_nobody(grown: Grown, liar: Liar) -> None:
    """CometBFT counts a vote that comes while it commits, and asks no application what it says."""
    liar.lie.write_text("late-noise")
    for _ in range(5):
        await liar.until_told(5)
        await liar.others_go_on(grown)
    liar.lie.unlink()
    await grown.sound()


async def test_forged_operations_in_a_block_change_nothing(grown: Grown, tenants: Settled, liar: Liar) -> None:
    ledger, node, cpu, refs = tenants.ledger, tenants.node, tenants.cpu, tenants.refs()
    committed = tenants.allocate("committed")
    await liar.others[0].insist(committed)
    asked = {name: allocation(node, cpu, name, 1) for name in ("bent", "stranger", "foreign", "elsewhere")}
    asked["greedy"] = allocation(node, cpu, "greedy", 1_000)
    bent = ledger_pb2.Envelope.FromString(tenants.ledger.envelope(tenants.operator, refs, allocate=asked["bent"]))
    bent.signature = bytes([bent.signature[0], bent.signature[1] ^ 1]) + bent.signature[2:]
    foreign = tenants.refs()
    foreign.space = refs.time
    stranger = member(grown.root, trust_pb2.ROLE_OPERATOR, "stranger")
    forged = {
        Reason.BadSignature: operations.canonical(bent),
        Reason.UnknownSigner: ledger.envelope(stranger, refs, allocate=asked["stranger"]),
        Reason.SpaceTicketForeign: ledger.envelope(tenants.operator, foreign, allocate=asked["foreign"]),
        Reason.InsufficientCapacity: ledger.envelope(tenants.operator, refs, allocate=asked["greedy"]),
        Reason.WrongChain: ledger.envelope(tenants.operator, refs, chain_id="elsewhere", allocate=asked["elsewhere"]),
    }
    before = await liar.refused()
    liar.proposes(committed, *forged.values())
    await liar.until_told(2)  # the first one is decided when it proposes again, and what it repeats changes nothing
    await liar.others_go_on(grown)
    liar.lie.unlink()
    after = await liar.refused()
    assert {reason for reason in forged if after.get(reason, 0) > before.get(reason, 0)} == set(forged)
    for place in grown.places:
        for each in asked.values():
            assert await place.client.get_allocation(each.allocation_id) is None
    newest = await liar.others[0].until(lambda _: True, "answer")
    await ledger.mirror.wait_until(lambda: ledger.mirror.height >= newest.height, LIMIT_S)
    assert tenants.reserved == 1, "what was committed once is there once"
    await grown.sound()


async def test_withheld_proposals_hold_up_nobody_for_long(grown: Grown, liar: Liar) -> None:
    liar.lie.write_text("withhold")
    await liar.until_told(1)
    await liar.others_go_on(grown)
    liar.lie.unlink()
    newest = await liar.others[0].until(lambda _: True, "answer")
    await liar.place.until(lambda status: status.height >= newest.height, "the others' blocks")
    await grown.sound()


async def test_another_state_is_nobody_elses_and_ends_with_its_own_ledger(grown: Grown, liar: Liar) -> None:
    liar.lie.write_text("app-hash")
    await liar.until_told(1)
    await liar.others_go_on(grown)
    status = await liar.place.status()
    others = await liar.others[0].until(lambda _: True, "answer")
    assert status is None or status.height < others.height, "it goes on with a state of its own"
    assert "wrong Block.Header.AppHash" in liar.place.log
    assert await no_fork(liar.others) > COUNT
    # Honest again, it can't go on from that state: it starts from the others' blocks, with the keys that it has.
    await liar.place.stop()
    liar.lie.unlink()
    home = liar.place.directory / "home"
    for path in (*(home / "data").iterdir(), *(home / "state").iterdir()):
        if path.name != "priv_validator_state.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    await liar.place.start()
    await liar.place.until(lambda status: status.height >= others.height, "the others' blocks")
    await grown.sound()


async def test_who_signs_twice_is_out_for_good(grown: Grown, liar: Liar) -> None:
    """The same consensus key in two ledgers, the second of which has forgotten what it signed."""
    accused, others = liar.place, liar.others
    home = accused.directory / "home"
    key, private = signer(home / "config" / "priv_validator_key.json")
    async with places_for(accused.directory.parent, [COUNT], grown.root) as (twin,):
        copy = twin.directory / "home"
        for name in ("config", "data"):
            (copy / name).mkdir(parents=True)
        for name in ("priv_validator_key.json", "genesis.json", "peers.json"):
            shutil.copy(home / "config" / name, copy / "config" / name)
        (copy / "data" / "priv_validator_state.json").write_text('{"height": "0", "round": 0, "step": 0}')
        await twin.start()
        evidence, end = None, time.monotonic() + LIMIT_S
        while evidence is None:
            assert time.monotonic() < end, f"no evidence\n{twin.log[-3000:]}\n{others[0].log[-3000:]}"
            await grown.commit(others[0], 1)
            found = (await others[0].client.validators(timeout=10)).evidence
            evidence = next((each for each in found if each.address == address_of(key)), None)
        assert evidence.kind == DOUBLE
        recorded = evidence.recorded_height
        for place in others:
            await place.until(lambda status: status.height >= recorded, "the block with the evidence")
            assert (await place.client.validators(timeout=10)).evidence == found
        await others[0].until(lambda status: status.height > evidence.recorded_height + 5, "blocks of three")
        for place in (*others, accused):  # the accused may have begun again just before
            await place.until(lambda status: status.height >= recorded, "the block with the evidence")
            seat = (await place.seats())[accused.identity.body.subject]
            assert seat.state == EXPELLED
        await liar.others_go_on(grown)
        print(f"evidence of height {evidence.height} in block {evidence.recorded_height}")
        identity = accused.identity
        chain_id = (await others[0].until(lambda _: True, "answer")).chain_id
        operation = ledger_pb2.Operation(
            chain_id=chain_id,
            valid_until_ms=time.time_ns() // 1_000_000 + 300_000,
            join_validator=ledger_pb2.JoinValidator(
                consensus_key=key, possession=private.sign(possession(chain_id, identity.key_id))
            ),
        )
        pair = identity.keypair
        with pytest.raises(Refused) as refusal:
            await others[0].insist(operations.build(operation, pair.public, pair.secret))
        assert refusal.value.reason is Reason.ValidatorExpelled
        await agree(others)
        assert await no_fork([*grown.places, twin]) > COUNT
    await grown.sound()
