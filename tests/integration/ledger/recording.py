"""Records what concurrent clients of one asset asked and were told, and has the checker judge it.

    clients (each at some ledger) -> Allocate, Release with call and return times -> history.json -> linearizable

A client that gets no answer submits the same bytes again, at another ledger, or gives up. So an operation lasts from
its first attempt to the answer. A Release that is told at a later attempt that the allocation has ended may have ended
it itself (`Over`); any other refusal at a later attempt says nothing of the earlier ones: they are one more operation.
What nobody was told is told by the state that is read at the end: what is there has happened before, what is not can
only happen later. (The checker could try all times for each; with a dozen of them it would not come to an end.)
The checker is hack/toolchain/linearizability.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror

from ...builders import allocation, registration
from ..ledger_fixture import START_S, Settled

CHECKER = Path(__file__).resolve().parents[3] / "build" / "bin" / "linearizable"
CHECK_S = 120
CAPACITY = 12
LARGEST = 5
COMMITTED, UNKNOWN, OVER = "Committed", "Unknown", "Over"
REFUSALS = frozenset({Reason.InsufficientCapacity, Reason.AllocationEnded, Reason.NoSuchAllocation})
ATTEMPT_S = 5.0
ATTEMPTS = 20
GIVE_UP = 0.1
"""How often a client does after the first attempt."""


@dataclass
class Operation:
    """What one client asked and was told; the names are the checker's. Times in nanoseconds of one clock."""

    client: int
    call: int
    kind: str
    id: int
    amount: int
    result: str = UNKNOWN
    # `return` in the file
    returned: int = 0

    def document(self) -> dict[str, object]:
        return {("return" if name == "returned" else name): value for name, value in asdict(self).items()}


@dataclass
class Recorder:
    """One run on one asset of its own."""

    settled: Settled
    asset: ledger_pb2.RegisterAsset
    clients: Sequence[LedgerClient]
    seed: int
    operations: list[Operation] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    """Allocations that somebody was told of; everybody may release them, several at once."""
    ids: int = 0
    unanswered: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    async def worker(self, number: int, count: int) -> None:
        """One client: allocates and releases until all of them together have done so many operations."""
        while len(self.operations) < count:
            if self.held and self.chance.random() < 0.5:
                each = self.chance.choice(self.held)
                if self.chance.random() < 0.7:  # else somebody may release it once more
                    self.held.remove(each)
                await self._insist(number, "release", each, 0, self._release(each))
            else:
                each, amount = self.ids, self.chance.randint(1, LARGEST)
                self.ids += 1
                asked = allocation(self.settled.node, self.asset, self._uid(each), amount)
                tx = self.settled.ledger.envelope(self.settled.operator, self.settled.refs(), allocate=asked)
                told = await self._insist(number, "allocate", each, amount, tx)
                if told == COMMITTED or (told == UNKNOWN and self.chance.random() < 0.5):
                    self.held.append(each)

    def _uid(self, number: int) -> str:
        return f"{self.seed}-{number}"

    def _release(self, number: int) -> bytes:
        asked = allocation(self.settled.node, self.asset, self._uid(number), 1)
        release = ledger_pb2.Release(allocation_id=asked.allocation_id)
        return self.settled.ledger.envelope(self.settled.operator, self.settled.refs(), release=release)

    async def _insist(self, number: int, kind: str, each: int, amount: int, tx: bytes) -> str:
        """The same bytes again at another ledger, when there is no answer; the last result."""
        attempts = 1 if self.chance.random() < GIVE_UP else ATTEMPTS
        done = Operation(number, time.monotonic_ns(), kind, each, amount)
        self.operations.append(done)
        for attempt, client in enumerate(itertools.islice(itertools.cycle(self.clients), number, number + attempts)):
            try:
                await client.submit(tx, timeout=ATTEMPT_S)
                done.result = COMMITTED
            except Refused as refusal:
                done.result = refusal.reason.value
                if refusal.reason not in REFUSALS:
                    raise AssertionError(f"{done}: {refusal}") from refusal
            except LedgerUnavailable:
                self.unanswered += 1
                await self._until_one_answers()
                continue
            done.returned = time.monotonic_ns()
            if attempt and done.result == Reason.AllocationEnded:
                done.result = OVER
            elif attempt and done.result != COMMITTED:
                self.operations.append(Operation(number, done.call, kind, each, amount))
            break
        return done.result

    async def _until_one_answers(self) -> None:
        """Bounded by whoever runs this."""
        for client in itertools.cycle(self.clients):
            try:
                await client.status(timeout=ATTEMPT_S)
            except LedgerUnavailable:
                await asyncio.sleep(0.1)
            else:
                return

    def read(self, mirror: Mirror, call: int) -> None:
        """One block's state, asked for at `call` and told now, and what it says of operations without an answer."""
        returned = time.monotonic_ns()
        for each in [each for each in self.operations if each.result == UNKNOWN]:
            asked = allocation(self.settled.node, self.asset, self._uid(each.id), 1)
            record = mirror.allocations.get(asked.allocation_id)
            there = record is not None
            ended = record is not None and record.state != ledger_pb2.ALLOCATION_STATE_ACTIVE
            if there if each.kind == "allocate" else ended and not self._released(each.id):
                each.result, each.returned = COMMITTED if each.kind == "allocate" else OVER, returned
            else:
                each.call = returned + 1
        reserved = mirror.assets[self.asset.asset_id].reserved
        self.operations.append(Operation(-1, call, "read", 0, reserved, COMMITTED, returned))

    def _released(self, number: int) -> bool:
        return any((each.kind, each.id, each.result) == ("release", number, COMMITTED) for each in self.operations)

    def write(self, path: Path) -> Path:
        """For the checker."""
        for each in self.operations:
            each.returned = max(each.returned, each.call)
        operations = [each.document() for each in self.operations]
        path.write_text(json.dumps({"capacity": CAPACITY, "operations": operations}))
        return path

    def summary(self) -> str:
        results = [each.result for each in self.operations]
        told = ", ".join(f"{results.count(each)} {each}" for each in sorted(set(results)))
        return f"seed {self.seed}: {len(results)} operations: {told}; {self.unanswered} attempts unanswered"


async def recorder(settled: Settled, clients: Sequence[LedgerClient], seed: int) -> Recorder:
    """On a new asset."""
    memory = ledger_pb2.ASSET_TYPE_MEMORY
    asset = registration(settled.node, memory, f"mem-{seed}", CAPACITY, work_device=settled.cpu.asset_id)
    await settled.ledger.register(settled.node, asset)
    return Recorder(settled, asset, clients, seed)


async def read_state(run: Recorder) -> None:
    """A read that knows every operation that anybody was told of."""
    ledger, call = run.settled.ledger, time.monotonic_ns()
    heights = [(await client.status(timeout=START_S)).height for client in {*run.clients, ledger.client}]
    await ledger.mirror.wait_until(lambda: ledger.mirror.height >= max(heights), START_S)
    run.read(ledger.mirror, call)


def judge(*histories: Path) -> tuple[int, str]:
    """The checker's exit status and what it says."""
    assert CHECKER.exists(), f"{CHECKER} is missing: run `make linearizable`"
    done = subprocess.run(
        [str(CHECKER), "-seconds", str(CHECK_S), *map(str, histories)],
        capture_output=True,
        text=True,
        timeout=CHECK_S * len(histories) + 60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
