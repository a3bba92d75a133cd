"""Who isn't near: each way to seem so is played against the real validator's side, over a wire without gRPC.

The one that works, giving the secret to a helper, is here too: docs/concepts/proofs.md says so.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any, ClassVar

import grpc
import pytest

from hypermesh import places
from hypermesh.v1 import place_pb2, trust_pb2
from hypermesh_clients.places import NotMeasured, _session

from ...adversary.places import Aborted, Node, Wire, between
from ...builders import Member, TrustRoot, member
from ...fuzz.mutators import mutated
from ..ledger.test_measuring import CHAIN, ME, Here

Said, Heard = place_pb2.MeasureRequest, place_pb2.MeasureResponse
FAR_S = 0.03


@pytest.fixture(scope="module")
def trust() -> TrustRoot:
    return TrustRoot()


@pytest.fixture(scope="module")
def node(trust: TrustRoot) -> Member:
    return member(trust, trust_pb2.ROLE_NODE, "node-1")


async def refused(caller: Node, here: Here, match: str) -> None:
    """Denied, for a reason that names the part; and nothing is told."""
    ended = await between(here.validator, caller)
    assert isinstance(ended, Aborted), "measured"
    assert ended.code is grpc.StatusCode.PERMISSION_DENIED
    assert match in str(ended)
    assert here.validator.told() == []


async def test_the_honest_are_measured(node: Member) -> None:
    here = Here(node)
    assert await between(here.validator, Node(node.keypair, CHAIN)) is None
    assert [each.node for each in here.validator.told()] == [node.key_id]


async def test_another_key_speaks_for_nobody(trust: TrustRoot, node: Member) -> None:
    other = member(trust, trust_pb2.ROLE_NODE, "node-2")

    class Impostor(Node):
        def hello(self, greeting: Heard.Greeting) -> Said.Hello:
            made = super().hello(greeting)
            made.node = node.key_id
            return made

    await refused(Impostor(other.keypair, CHAIN), Here(node, other), "not signed")
    await refused(Node(other.keypair, CHAIN), Here(node), "no such node")


@pytest.mark.parametrize("part", ["chain", "validator", "nonce", "commitment"])
async def test_a_signature_is_for_this_session_alone(node: Member, part: str) -> None:
    class Elsewhere(Node):
        def hello(self, greeting: Heard.Greeting) -> Said.Hello:
            if part == "chain":
                self.chain_id = "hypermesh-other"
            if part == "validator":
                greeting.validator = b"v" * 20
            if part == "nonce":
                greeting.nonce = secrets.token_bytes(32)
            made = super().hello(greeting)
            if part == "commitment":
                self.secret = b"t" * 32
                made.commitment = places.commitment(self.secret)
            return made

    await refused(Elsewhere(node.keypair, CHAIN), Here(node), "not signed")


async def test_a_session_that_was_heard_can_not_be_played_again(node: Member) -> None:
    class Recorded(Node):
        said: ClassVar[list[Said]] = []

        async def __call__(self, end: Any) -> None:
            plain = end.write

            async def write(message: Said) -> None:
                self.said.append(message)
                await plain(message)

            end.write = write
            await super().__call__(end)

    class Replayed(Node):
        fresh_hello = False

        async def __call__(self, end: Any) -> None:
            greeting = (await end.read()).greeting
            for number, message in enumerate(Recorded.said):
                again = Said(hello=self.hello(greeting)) if self.fresh_hello and not number else message
                await end.write(again)

    assert await between(Here(node).validator, Recorded(node.keypair, CHAIN)) is None
    assert len(Recorded.said) == places.ROUNDS + 2
    await refused(Replayed(node.keypair, CHAIN), Here(node), "not signed")
    Replayed.fresh_hello = True  # the node's own key, which spares itself the way of the challenges
    await refused(Replayed(node.keypair, CHAIN), Here(node), "answer of round 0")


@pytest.mark.parametrize(
    "wrong", ["guessed", "of-another-round", "of-the-challenge-before", "empty", "long", "late-one"]
)
async def test_wrong_answers_are_found_when_the_secret_is_opened(node: Member, wrong: str) -> None:
    class Cheat(Node):
        before = b"\0" * 32

        async def answer(self, number: int, challenge: bytes) -> bytes:
            right, self.before, before = places.answer(self.secret, number, challenge), challenge, self.before
            if wrong == "late-one":
                return right if number < places.ROUNDS - 1 else right[::-1]
            return {
                "guessed": secrets.token_bytes(32),
                "of-another-round": places.answer(self.secret, number + 1, challenge),
                "of-the-challenge-before": places.answer(self.secret, number, before),
                "empty": b"",
                "long": right + b"\0",
            }[wrong]

    await refused(Cheat(node.keypair, CHAIN), Here(node), "answer of round")


@pytest.mark.parametrize("opened", [b"", b"t" * 32, b"s" * 31, b"s" * 33, b"s" * 4096])
async def test_another_secret_than_the_one_committed_to_opens_nothing(node: Member, opened: bytes) -> None:
    class Cheat(Node):
        def opened(self) -> bytes:
            return opened

    await refused(Cheat(node.keypair, CHAIN), Here(node), "committed")


async def test_steps_in_another_order_end_the_session(node: Member) -> None:
    honest = Node(node.keypair, CHAIN)
    kinds = [Said(answer=b"a" * 32), Said(secret=honest.secret), Said(), Said(hello=Said.Hello()), None]
    for first in kinds:

        async def caller(end: Any, first: Said | None = first) -> None:
            await end.read()
            await end.write(first)

        ended = await between(Here(node).validator, caller)
        assert ended is not None
        assert ended.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("field", ["node", "commitment", "signature"])
async def test_every_changed_field_of_a_hello_is_refused(node: Member, field: str) -> None:
    """Bits, cuts, stretches and pieces of other fields."""
    chance, here = random.Random(7), Here(node)
    for _ in range(150):

        class Mutant(Node):
            def hello(self, greeting: Heard.Greeting) -> Said.Hello:
                made = super().hello(greeting)
                honest, others = getattr(made, field), [made.node, made.commitment, made.signature]
                changed = honest
                while changed == honest:
                    changed = mutated(honest, others, chance)
                setattr(made, field, changed)
                return made

        await refused(Mutant(node.keypair, CHAIN), here, "no such node" if field == "node" else "")


async def test_a_relay_near_the_validator_makes_nobody_nearer(node: Member) -> None:
    """A ledger that lies about who it is gets the node's hello for the true one, and no secret until it is over."""

    class Far(Node):
        async def answer(self, number: int, challenge: bytes) -> bytes:
            await asyncio.sleep(FAR_S)
            return await super().answer(number, challenge)

    async def relay(near: Any) -> None:
        wire = Wire()
        far = asyncio.create_task(Far(node.keypair, CHAIN)(wire.node))
        try:
            while True:
                await wire.write(await near.read())
                await near.write(await wire.read())
        finally:
            far.cancel()

    here = Here(node)
    assert await between(here.validator, relay) is None
    (trip,) = here.validator.told()
    assert trip.microseconds >= FAR_S * 1_000_000

    class Alone(Node):
        """The relay answers by itself: it has the hello and the challenge, and guesses."""

        async def answer(self, number: int, challenge: bytes) -> bytes:
            return places.answer(secrets.token_bytes(32), number, challenge)

    await refused(Alone(node.keypair, CHAIN), Here(node), "answer of round 0")


async def test_a_relay_gets_no_secret_for_questions_of_its_own(node: Member) -> None:
    """A ledger that lies about who it is asks the node first, to answer the true validator by itself then."""
    opened: list[bytes] = []

    async def relay(near: Any) -> None:
        wire, seed = Wire(), secrets.token_bytes(places.NONCE_BYTES)
        far = asyncio.create_task(_session(wire.node, node.keypair, CHAIN))
        try:
            await wire.write(await near.read())
            hello = await wire.read()
            for challenge in places.challenges(seed):
                await wire.write(Heard(challenge=challenge))
                await wire.read()
            await wire.write(Heard(seed=seed))
            early = asyncio.create_task(wire.read())
            await asyncio.wait([far, early], return_when=asyncio.FIRST_COMPLETED)
            if early.done():
                opened.append(early.result().secret)
            early.cancel()
            with pytest.raises(NotMeasured, match="challenges"):
                await far
        finally:
            far.cancel()
        await near.write(hello)
        for number in range(places.ROUNDS):
            await near.write(Said(answer=places.answer(bytes(32), number, (await near.read()).challenge)))
        await near.read()
        await near.write(Said(secret=bytes(32)))

    here = Here(node)
    ended = await between(here.validator, relay)
    assert isinstance(ended, Aborted)
    assert opened == []
    assert here.validator.told() == []


async def test_the_validator_opens_what_its_challenges_came_of(node: Member) -> None:
    asked: list[Any] = []

    class Keeps(Node):
        async def __call__(self, end: Any) -> None:
            plain = end.read

            async def read() -> Any:
                asked.append(await plain())
                return asked[-1]

            end.read = read
            await super().__call__(end)

    assert await between(Here(node).validator, Keeps(node.keypair, CHAIN)) is None
    greeting, *rounds, opened = asked[: places.ROUNDS + 2]
    assert places.seed_commitment(opened.seed) == greeting.greeting.nonce
    assert [each.challenge for each in rounds] == places.challenges(opened.seed)
    assert len({each.challenge for each in rounds}) == places.ROUNDS


async def test_a_long_answer_is_not_kept_until_the_end(node: Member) -> None:
    """A message may be a megabyte, and there are twelve rounds in each of sixteen sessions."""
    asked = []

    class Long(Node):
        async def answer(self, number: int, challenge: bytes) -> bytes:
            asked.append(number)
            return bytes(1 << 20)

    await refused(Long(node.keypair, CHAIN), Here(node), "answer of round 0")
    assert asked == [0]


async def test_a_helper_with_the_secret_is_as_near_as_the_helper(node: Member) -> None:
    """What it does not show: the far node signs, its helper answers."""
    greeted: list[Heard.Greeting] = []

    class Helped(Node):
        def hello(self, greeting: Heard.Greeting) -> Said.Hello:
            greeted.append(greeting)
            return super().hello(greeting)

        async def __call__(self, end: Any) -> None:
            greeting = (await end.read()).greeting
            await asyncio.sleep(FAR_S)  # on the way to the far node, and back
            await end.write(Said(hello=self.hello(greeting)))
            for number in range(places.ROUNDS):
                await end.write(Said(answer=await self.answer(number, (await end.read()).challenge)))
            await end.read()
            await end.write(Said(secret=self.opened()))

    here = Here(node)
    assert await between(here.validator, Helped(node.keypair, CHAIN)) is None
    assert greeted[0].validator == ME
    assert here.validator.told()
