"""Our side of the ledger benchmark: one validator, or four that extend their votes, and what clients measure."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from _kvstore import CLIENTS
from _rows import resident
from tests.builders import TrustRoot, allocation
from tests.integration.ledger.four_ledgers import LIMIT_S, PORT, Place
from tests.integration.ledger.grown import ACTIVE, seen_through
from tests.integration.ledger_fixture import Settled, patient, running_ledger, settle

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import trust_pb2, votes_pb2
from hypermesh_clients.ledger import Commit, LedgerClient
from hypermesh_ledger import keys

IN_A_CALL: Final = 200
CALLS: Final = 5
"""Under way at once of one operator: what a key's share of the pool has room for."""
FLOODS: Final = 6
"""Waves of 200 that wait at once: more than a key's share of the pool."""
CAPACITY: Final = 1 << 40


@dataclass(frozen=True)
class Ours:
    """A running ledger. targets: its validators' services; modest: other operators than that of `settled`."""

    settled: Settled
    modest: Sequence[Settled]
    targets: Sequence[str]
    tls_name: str | None = None

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[list[LedgerClient]]:
        """CLIENTS that have made their connections, spread over the validators."""
        targets = itertools.islice(itertools.cycle(self.targets), CLIENTS)
        clients = [LedgerClient(target, self.settled.ledger.ca_pem, self.tls_name) for target in targets]
        try:
            await asyncio.gather(*(client.status(timeout=30) for client in clients))
            yield clients
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    async def crowd(self, name: str, count: int) -> float:
        """Allocates committed a second, an operator's for each client; signed before the clock starts."""
        operators = [self.settled, *self.modest]
        shares = [
            [who.allocate(f"{name}-{index}") for index in range(first, count, CLIENTS)]
            for first, who in enumerate(operators)
        ]
        async with self.connected() as clients:
            began = time.perf_counter()
            done = await asyncio.gather(
                *(submit_all([client] * CALLS, share) for client, share in zip(clients, shares, strict=True))
            )
            if sum(done) < count:
                raise SystemExit("the pool was full: fewer at once, please")
            return count / (time.perf_counter() - began)

    async def at_rate(self, name: str, rate: int, seconds: int) -> list[float]:
        """Seconds from submission to commit at so many a second, in turns by every client; signed before the first."""
        envelopes = [self.settled.allocate(f"{name}-{index}") for index in range(rate * seconds)]

        async def one(client: LedgerClient, envelope: bytes, due: float) -> float:
            await asyncio.sleep(due - time.perf_counter())
            await client.submit(envelope, timeout=60)
            return time.perf_counter() - due

        async with self.connected() as clients:
            began = time.perf_counter()
            turns = zip(itertools.cycle(clients), enumerate(envelopes), strict=False)
            return await asyncio.gather(*(one(who, what, began + at / rate) for who, (at, what) in turns))

    async def flooded(self, name: str, count: int) -> tuple[list[float], list[float]]:
        """Seconds that another operator's single operations take: alone, and while one key's share is full."""
        alone = await singles(self.modest[0], f"{name}-alone", count)
        settled, ledger, refs = self.settled, self.settled.ledger, self.settled.refs()
        keypair, stop, waves = settled.operator.keypair, asyncio.Event(), itertools.count()

        async def wave(client: LedgerClient) -> None:
            while not stop.is_set():
                uids = [f"{name}-{next(waves)}" for _ in range(IN_A_CALL)]
                asked = [(ledger.operation(allocate=allocation(settled.node, settled.cpu, u, 1)), refs) for u in uids]
                built = await asyncio.to_thread(operations.build_batch, asked, keypair.public, keypair.secret)
                await submit_all([client], built, meeting=True)

        async with self.connected() as clients:
            flood = [asyncio.create_task(wave(clients[each % CLIENTS])) for each in range(FLOODS)]
            try:
                async with asyncio.timeout(120):
                    while not (await ledger.client.status(timeout=30)).mempool:  # noqa: ASYNC110 - of another process
                        await asyncio.sleep(0.01)
                beside = await singles(self.modest[0], f"{name}-beside", count)
            finally:
                stop.set()
                await asyncio.gather(*flood)
        return alone, beside


async def singles(settled: Settled, name: str, count: int) -> list[float]:
    """Seconds from submission to commit, one at a time."""
    taken = []
    for index in range(count):
        envelope = settled.allocate(f"{name}-{index}")
        began = time.perf_counter()
        await settled.ledger.client.submit(envelope, timeout=30)
        taken.append(time.perf_counter() - began)
    return taken


async def submit_all(clients: Sequence[LedgerClient], envelopes: Sequence[bytes], meeting: bool = False) -> int:
    """Through SubmitMany, a client's calls one after another; how many were committed, all others gave way.

    meeting: addresses of one node's allocations are 36 bits, so of hundreds of thousands some two meet: such a refusal
    is no error then. Who allocates in earnest asks again with the next counter.
    """
    calls = [envelopes[first : first + IN_A_CALL] for first in range(0, len(envelopes), IN_A_CALL)]
    committed = 0

    async def work(client: LedgerClient) -> None:
        nonlocal committed
        while calls:
            async for _, outcome in client.submit_many(calls.pop(), 120):
                if isinstance(outcome, Refused) and not (meeting and outcome.reason is Reason.AddressTaken):
                    raise outcome
                committed += isinstance(outcome, Commit)

    await asyncio.gather(*map(work, clients))
    return committed


@contextlib.asynccontextmanager
async def one_validator(directory: Path) -> AsyncIterator[Ours]:
    """On ::1."""
    async with running_ledger(directory, patient()) as ledger:
        settled = await settle(ledger, CAPACITY)
        yield Ours(settled, await _modest(settled), [ledger.target])


@contextlib.asynccontextmanager
async def four_validators(places: Sequence[Place], root: TrustRoot) -> AsyncIterator[Ours]:
    """In the places' network namespaces, each with its seat, votes extended."""
    await asyncio.gather(*(place.start() for place in places))
    first = places[0]
    await first.until(lambda status: status.height > 1, "block")
    async with asyncio.timeout(LIMIT_S):
        while [each.state for each in (await first.seats()).values()] != [ACTIVE] * len(places):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        while not (begun := await _extended_from(first)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await first.until(lambda status: status.height > begun + 1, "extended votes")
    async with seen_through(first, root) as ledger:
        settled = await settle(ledger, CAPACITY)
        yield Ours(settled, await _modest(settled), [f"[{each.address}]:{PORT}" for each in places], "localhost")


async def _extended_from(place: Place) -> int:
    """The height from which votes are extended; 0 until that is decided."""
    return votes_pb2.Extensions.FromString(await place.proven(keys.EXTENSIONS)).enable_height


async def _modest(settled: Settled) -> list[Settled]:
    names = [f"hypermesh-operator-{number}" for number in range(2, CLIENTS + 1)]
    return [replace(settled, operator=await settled.ledger.enrol(trust_pb2.ROLE_OPERATOR, name)) for name in names]


@contextlib.asynccontextmanager
async def still(places: Sequence[Place]) -> AsyncIterator[None]:
    """They use no processor time meanwhile; afterwards they make blocks again."""
    for place in places:
        place.pause()
    try:
        yield
    finally:
        for place in places:
            place.resume()
    for place in places:
        now = await place.until(lambda _: True, "answer")
        await place.until(lambda status, height=now.height: status.height > height + 1, "block")  # type: ignore[misc]


def memory_of(parents: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Of each of a supervisor's processes, the largest of all supervisors', in MiB."""
    found: dict[str, list[float]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if parent in parents:
                name = "cometbft" if b"start" in command else "application"
                found.setdefault(name, []).append(resident(int(entry.name)) / 1024)
    yield from ((name, max(sizes)) for name, sizes in sorted(found.items()))
