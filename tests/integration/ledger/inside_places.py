"""Four validators measure how far away nodes can be: a near one, a far one, a silent one, and some that lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from hypermesh import places
from hypermesh.v1 import ledger_pb2_grpc, place_pb2, trust_pb2, votes_pb2
from hypermesh_agent.placing import Placing, sessions
from hypermesh_clients.ledger import channel_to
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.places import NotMeasured, StillFresh, be_measured
from hypermesh_ledger import keys
from hypermesh_ledger.execution.validators import address_of

from ...adversary.places import Node
from ...builders import Member
from ..ledger_fixture import Ledger
from .faults import delay
from .four_ledgers import COUNT, LIMIT_S, METRICS, PORT, Place, places_for
from .grown import Grown

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAR_MS = 100
FAR = 7
"""Number of the far node's namespace."""


@dataclass
class Measuring:
    """The four, a copy of their state, and nodes made for it."""

    grown: Grown
    ledger: Ledger
    mirror: Mirror

    @property
    def targets(self) -> list[str]:
        return [f"[{place.address}]:{PORT}" for place in self.grown.places]

    @property
    def ca(self) -> Path:
        return self.grown.places[0].directory / "tls.crt"

    async def node(self, name: str) -> Member:
        return await self.ledger.enrol(trust_pb2.ROLE_NODE, name)

    async def record(self, node: Member, count: int) -> votes_pb2.PlaceRecord:
        """Once that many validators have told their bound."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = votes_pb2.PlaceRecord.FromString(await self.grown.places[1].proven(keys.place(node.key_id)))
                if len(found.bounds) >= count:
                    return found
                await asyncio.sleep(0.5)

    async def validators(self) -> dict[bytes, str]:
        """Targets by address."""
        seats = await self.grown.places[0].seats()
        return {
            address_of(seats[f"hypermesh-ledger-{number}"].consensus_key): target
            for number, target in enumerate(self.targets)
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def measuring(grown: Grown) -> AsyncIterator[Measuring]:
    place = grown.places[2]
    mirror = Mirror(place.client)
    following = asyncio.create_task(mirror.run())
    try:
        await mirror.wait_until(lambda: mirror.epoch.number > 0, LIMIT_S)
        yield Measuring(
            grown, Ledger(place.directory, grown.root, PORT, METRICS, b"", (), place.client, mirror), mirror
        )
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_node_that_calls_is_placed_by_all_four(measuring: Measuring) -> None:
    """The agent's own part, with real sessions; what it was told is what the state holds."""
    assert await measuring.grown.places[1].proven(keys.PLACES) == b""
    node = await measuring.node("near")
    session = sessions(measuring.ca.read_bytes(), "localhost", node.keypair, measuring.mirror)
    placing = Placing(measuring.mirror, node.key_id, ",".join(measuring.targets), session)
    async with asyncio.timeout(LIMIT_S):
        while placing.validators() < COUNT:
            await placing.round()
            await asyncio.sleep(0.5)
    record = await measuring.record(node, COUNT)
    validators = await measuring.validators()
    assert {each.validator for each in record.bounds} == set(validators)
    assert placing.nearest_s() == min(each.microseconds for each in record.bounds) / 1e6
    believed = places.believed_us(record, validators, measuring.mirror.epoch.number)
    assert believed == sorted(each.microseconds for each in record.bounds)[1]
    print(f"near: {sorted(each.microseconds for each in record.bounds)} us, no wire between")
    with pytest.raises(StillFresh):
        await session(measuring.targets[0])
    await shown(measuring, node, record)


async def shown(measuring: Measuring, node: Member, record: votes_pb2.PlaceRecord) -> None:
    """`kubectl hypermesh ledger proofs`, through a way to the ledger whose end is this machine's."""
    first = measuring.grown.places[0]
    async with relay(first) as target:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "kubectl_hypermesh.main", "ledger", "proofs", node.key_id.hex()),
            *("--ledger", target, "--ca", str(measuring.ca), "-o", "json"),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    found = json.loads(output)["place"]
    assert found["placed"]
    assert {each["validator"] for each in found["bounds"]} == {f"hypermesh-ledger-{number}" for number in range(COUNT)}
    assert [each["roundTripMicroseconds"] for each in found["bounds"]] == sorted(
        each.microseconds for each in record.bounds
    )


@contextlib.asynccontextmanager
async def relay(place: Place) -> AsyncIterator[str]:
    """[::1]:port that leads to a ledger, whose certificate is for this machine."""
    ends: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(place.address, PORT)
        ends.update({asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))})

    server = await asyncio.start_server(joined, "::1", 0)
    try:
        yield f"[::1]:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_a_far_node_shows_larger_bounds(measuring: Measuring, tmp_path: Path) -> None:
    """In a namespace of its own, behind a slow wire."""
    node = await measuring.node("far")
    key = tmp_path / "key"
    key.write_bytes(node.keypair.encode())
    beside = measuring.grown.places[0].directory.parent
    async with places_for(beside, [FAR], measuring.grown.root) as (far,), delay(far, FAR_MS):
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net=/proc/{far.holder.pid}/ns/net", "--", sys.executable, "-P"),
            *(str(Path(__file__).with_name("calling.py")), str(key), str(measuring.ca)),
            *(measuring.mirror.chain_id, *measuring.targets),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == 0
    found = {each["target"]: each["microseconds"] for each in map(json.loads, output.splitlines())}
    assert min(found.values()) >= 2 * FAR_MS * 1_000
    record, validators = await measuring.record(node, COUNT), await measuring.validators()
    assert {validators[each.validator]: each.microseconds for each in record.bounds} == found
    print(
        f"far: {sorted(found.values())} us, {FAR_MS} ms each way; at most {places.farthest_km(min(found.values()))} km"
    )


async def test_who_is_silent_has_no_place_and_is_refused_nothing(measuring: Measuring) -> None:
    node = await measuring.node("silent")
    channel = channel_to(measuring.targets[0], measuring.ca.read_bytes(), "localhost")
    try:
        call = ledger_pb2_grpc.LedgerStub(channel).Measure()  # type: ignore[no-untyped-call]
        assert (await call.read()).WhichOneof("said") == "greeting"
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call.read(), LIMIT_S)
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        await channel.close()
    await measuring.grown.commit(measuring.grown.places[0], 1)
    assert (await measuring.record(node, 0)).bounds == []


async def test_forged_replayed_and_foreign_answers_are_refused(measuring: Measuring) -> None:
    node, other = await measuring.node("honest"), await measuring.node("other")
    chain_id = measuring.mirror.chain_id

    class Foreign(Node):
        """Another key's signature under the node's name."""

        def hello(self, greeting: place_pb2.MeasureResponse.Greeting) -> place_pb2.MeasureRequest.Hello:
            made = super().hello(greeting)
            made.node = node.key_id
            return made

    class Guesses(Node):
        async def answer(self, number: int, challenge: bytes) -> bytes:
            return challenge

    class Replays(Node):
        kept = b""

        async def answer(self, number: int, challenge: bytes) -> bytes:
            self.kept = self.kept or await super().answer(number, challenge)
            return self.kept

    class Changes(Node):
        def opened(self) -> bytes:
            return bytes(32)

    cheats = (
        (Foreign(other.keypair, chain_id), "not signed"),
        (Node(node.keypair, "hypermesh-other-chain"), "not signed"),
        (Guesses(node.keypair, chain_id), "answer of round 0"),
        (Replays(node.keypair, chain_id), "answer of round 1"),
        (Changes(node.keypair, chain_id), "committed"),
    )
    for cheat, reason in cheats:
        code, details = await played(measuring, cheat)
        assert code is grpc.StatusCode.PERMISSION_DENIED, details
        assert reason in details
    for each in (node, other):
        assert (await measuring.record(each, 0)).bounds == []
    measured = await be_measured(measuring.targets[3], measuring.ca.read_bytes(), "localhost", node.keypair, chain_id)
    (bound,) = (await measuring.record(node, 1)).bounds
    assert bound.microseconds == measured.microseconds
    assert places.believed_us(votes_pb2.PlaceRecord(bounds=[bound]), await measuring.validators(), bound.epoch) is None
    with pytest.raises(NotMeasured):
        await be_measured(measuring.targets[3], measuring.ca.read_bytes(), "localhost", node.keypair, chain_id)
    await measuring.grown.sound()


async def played(measuring: Measuring, cheat: Node) -> tuple[grpc.StatusCode, str]:
    """How the validator ended the session."""
    channel = channel_to(measuring.targets[3], measuring.ca.read_bytes(), "localhost")
    call: Any = ledger_pb2_grpc.LedgerStub(channel).Measure()  # type: ignore[no-untyped-call]
    playing = asyncio.create_task(cheat(call))
    try:
        async with asyncio.timeout(LIMIT_S):
            return await call.code(), await call.details()
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await channel.close()
