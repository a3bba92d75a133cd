"""A process's own copy of the ledger's records, kept fresh by Watch.

    Watch -> snapshot into a new View -> swapped in at `synced` -> each block's changes applied -> callbacks

While the ledger is away the last View stays readable and `age()` grows; after a reconnection a whole new View replaces
it, so nothing that changed meanwhile is missed. Everything runs on one event loop; between two awaits the mirror shows
exactly one block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable

_log = logging.getLogger(__name__)

SILENCE_S: Final = 5.0
"""The ledger sends a marker every second; after this much silence the connection is given up."""
HALTED_S: Final = 10.0
"""A ledger without a new block for this long (idle, it makes one every 3 s) commits nothing, whatever it answers."""
CATCH_UP_S: Final = 10.0
"""How long a ledger of the same chain may be behind what is known here, until it is taken for a restored one."""
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class TicketsMissing(Exception):
    """Tickets that an operation needs and that the ledger does not hold (`kinds`: space, stake, work, time)."""

    def __init__(self, kinds: list[str], subject: str) -> None:
        super().__init__(f"{subject} has no {', '.join(kinds)} ticket yet; wait for its agent's next proof.")
        self.kinds = kinds


@dataclass(slots=True)
class View:
    """Records by their id, as of one height."""

    nodes: dict[bytes, ledger_pb2.NodeRecord] = field(default_factory=dict)
    assets: dict[bytes, ledger_pb2.AssetRecord] = field(default_factory=dict)
    allocations: dict[bytes, ledger_pb2.AllocationRecord] = field(default_factory=dict)
    tickets: dict[tuple[int, bytes], proofs_pb2.Ticket] = field(default_factory=dict)
    work_tickets: dict[tuple[bytes, bytes], proofs_pb2.Ticket] = field(default_factory=dict)
    work_seeds: dict[bytes, ledger_pb2.WorkSeed] = field(default_factory=dict)
    delegations: dict[bytes, ledger_pb2.Delegations] = field(default_factory=dict)
    memories: dict[tuple[bytes, bytes], ledger_pb2.MemoryRecord] = field(default_factory=dict)
    epoch: ledger_pb2.Epoch = field(default_factory=ledger_pb2.Epoch)
    genesis: ledger_pb2.Genesis = field(default_factory=ledger_pb2.Genesis)
    chain_id: str = ""
    height: int = 0
    block_time_ms: int = 0
    app_hash: bytes = b""

    def apply(self, change: ledger_pb2.Change) -> None:
        """One new version of one record."""
        match change.WhichOneof("record"):
            case "node":
                self.nodes[change.node.key_id] = change.node
            case "asset":
                self.assets[change.asset.registration.asset_id] = change.asset
            case "allocation":
                self.allocations[change.allocation.allocation_id] = change.allocation
            case "allocation_gone":
                self.allocations.pop(change.allocation_gone, None)
            case "ticket":
                self._apply_ticket(change.ticket)
            case "ticket_gone":
                self._drop_ticket(change.ticket_gone)
            case "work_seed":
                self.work_seeds[change.work_seed.node] = change.work_seed
            case "delegations":
                self.delegations[change.delegations.owner] = change.delegations
            case "memory":
                self.memories[change.memory.node, change.memory.commitment.asset] = change.memory
            case "epoch":
                self.epoch = change.epoch
            case "block":
                self.height, self.block_time_ms = change.block.height, change.block.time_ms
                self.app_hash = change.block.app_hash
            case "status":
                status = change.status
                self.chain_id, self.genesis, self.epoch = status.chain_id, status.genesis, status.epoch
                self.height, self.block_time_ms = status.height, status.block_time_ms
                self.app_hash = status.app_hash

    def _apply_ticket(self, ticket: proofs_pb2.Ticket) -> None:
        held = self.tickets.get((ticket.kind, ticket.subject))
        if held is None or held.epoch <= ticket.epoch:
            self.tickets[ticket.kind, ticket.subject] = ticket
        if ticket.kind == proofs_pb2.PROOF_KIND_WORK:
            held = self.work_tickets.get((ticket.node, ticket.subject))
            if held is None or held.epoch <= ticket.epoch:
                self.work_tickets[ticket.node, ticket.subject] = ticket

    def _drop_ticket(self, gone: proofs_pb2.Ticket) -> None:
        """Older tickets than the newest leave the state all the time; they are not held here."""
        held = self.tickets.get((gone.kind, gone.subject))
        if held is not None and (held.node, held.epoch) == (gone.node, gone.epoch):
            del self.tickets[gone.kind, gone.subject]
        held = self.work_tickets.get((gone.node, gone.subject))
        if gone.kind == proofs_pb2.PROOF_KIND_WORK and held is not None and held.epoch == gone.epoch:
            del self.work_tickets[gone.node, gone.subject]


Callback = Callable[[ledger_pb2.Change], None]


class Mirror:
    """node limits the copy to what concerns one node (its key id); empty mirrors everything."""

    def __init__(self, client: LedgerClient, node: bytes = b"") -> None:
        self._client = client
        self._node = node
        self._view = View()
        self._callbacks: list[Callback] = []
        self._advanced = asyncio.Event()
        self._heard: float | None = None
        self._moved: float | None = None
        self._last_height = 0
        self._behind_since: float | None = None
        self.synced = asyncio.Event()
        """Set once the first whole copy is there, and then for ever; `age` says how fresh it is."""

    # -- what it holds ---------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The current copy. Ask for it again after an await: a resynchronisation replaces it."""
        return self._view

    @property
    def chain_id(self) -> str:
        return self._view.chain_id

    @property
    def genesis(self) -> ledger_pb2.Genesis:
        return self._view.genesis

    @property
    def parameters(self) -> proofs_pb2.ProofParameters:
        return self._view.genesis.proofs

    @property
    def epoch(self) -> ledger_pb2.Epoch:
        return self._view.epoch

    @property
    def height(self) -> int:
        return self._view.height

    @property
    def block_time_ms(self) -> int:
        return self._view.block_time_ms

    @property
    def nodes(self) -> dict[bytes, ledger_pb2.NodeRecord]:
        """By key id; nodes and services alike."""
        return self._view.nodes

    @property
    def assets(self) -> dict[bytes, ledger_pb2.AssetRecord]:
        """By asset id, retired ones too."""
        return self._view.assets

    @property
    def allocations(self) -> dict[bytes, ledger_pb2.AllocationRecord]:
        """By allocation id; ended ones too while the ledger remembers them."""
        return self._view.allocations

    @property
    def tickets(self) -> dict[tuple[int, bytes], proofs_pb2.Ticket]:
        """The newest by (ProofKind, subject)."""
        return self._view.tickets

    @property
    def work_seeds(self) -> dict[bytes, ledger_pb2.WorkSeed]:
        """The newest by node key id."""
        return self._view.work_seeds

    @property
    def delegations(self) -> dict[bytes, ledger_pb2.Delegations]:
        """What owners have let others do, by the owner's key id; those that have ended too."""
        return self._view.delegations

    @property
    def memories(self) -> dict[tuple[bytes, bytes], ledger_pb2.MemoryRecord]:
        """What was committed and shown, by node key id and asset id; empty where the chain asks for no memory."""
        return self._view.memories

    def age(self) -> float:
        """Seconds since the ledger's last word; infinite before the first."""
        return float("inf") if self._heard is None else time.monotonic() - self._heard

    def stalled_for(self) -> float:
        """Seconds since the height last rose; infinite before the first. Markers alone keep only `age` small."""
        return float("inf") if self._moved is None else time.monotonic() - self._moved

    def problem(self) -> str | None:
        """Why the ledger can't be counted on now, None when it can: for readiness checks."""
        if not self.synced.is_set():
            return "its records have not come yet"
        silent, stalled = self.age(), self.stalled_for()
        if silent >= HALTED_S:
            return f"nothing heard for {silent:.0f} s"
        return f"no block for {stalled:.0f} s" if stalled >= HALTED_S else None

    def ticket_refs(self, node: bytes, device: bytes, signer: bytes) -> proofs_pb2.TicketRefs:
        """The four tickets of an operation on an asset of `node` proven by `device` (its record's work_device).

        Raises TicketsMissing when one is not won yet. Freshness is the ledger's to judge.
        """
        view = self._view
        space = view.tickets.get((proofs_pb2.PROOF_KIND_SPACE, node))
        duration = view.tickets.get((proofs_pb2.PROOF_KIND_TIME, node))
        work = view.work_tickets.get((node, device))
        who = view.nodes.get(signer)
        held = {"space": space, "stake": who, "work": work, "time": duration}
        if space is None or duration is None or work is None or who is None:
            missing = [kind for kind, value in held.items() if value is None]
            raise TicketsMissing(missing, f"Node {node.hex()[:16]}")
        role = trust_pb2.CertificateBody.FromString(who.certificate.body).role
        stake = stake_ticket_hash(signer, role, who.certificate, view.epoch.number)
        return proofs_pb2.TicketRefs(space=space.hash, stake=stake, work=work.hash, time=duration.hash)

    # -- keeping it fresh ------------------------------------------------------------------------------------

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Calls back for every change after it is applied (the whole state again after a resynchronisation).

        Callbacks must return at once. Returns a function that ends the subscription.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def wait_until(self, predicate: Callable[[], bool], timeout: float) -> None:  # noqa: ASYNC109
        """Returns as soon as the predicate holds, asked again after every batch. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not predicate():
                await self._advanced.wait()

    async def run(self) -> None:
        """Follows the ledger for ever, through every interruption; ends only when cancelled."""
        failures = 0
        while True:
            heard = self._heard
            try:
                await self._follow()
            except (LedgerUnavailable, TimeoutError) as error:
                failures = failures + 1 if self._heard == heard else 1
                if failures == 1:
                    _log.warning("ledger watch interrupted: %s", str(error) or f"silent for {SILENCE_S} s")
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1])

    async def _follow(self) -> None:
        """One connection, until it breaks."""
        fresh, snapshot = View(), list[ledger_pb2.Change]()
        complete = swapped = False
        async with aclosing(self._client.watch(self._node)) as stream:
            while True:
                changes = await _next(stream)
                self._heard = time.monotonic()
                for change in changes.changes:
                    if swapped:
                        self._view.apply(change)
                        self._tell(change)
                        continue
                    complete = complete or change.WhichOneof("record") == "synced"
                    fresh.apply(change)
                    snapshot.append(change)
                if complete and not swapped and not self._behind(fresh):
                    self._swap(fresh, snapshot)
                    swapped, snapshot = True, []
                if swapped and self.height != self._last_height:
                    self._last_height, self._moved = self.height, time.monotonic()
                self._wake()

    def _behind(self, fresh: View) -> bool:
        """Whether this ledger is to catch up first: else what it has not heard of yet would be gone for a moment."""
        if fresh.chain_id != self._view.chain_id or fresh.height >= self._view.height:
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = time.monotonic()
            text = "chain %s went back from height %d to %d: this ledger is behind another, or restored from a backup"
            _log.warning(text, fresh.chain_id, self._view.height, fresh.height)
        return time.monotonic() - self._behind_since < CATCH_UP_S

    def _swap(self, fresh: View, snapshot: list[ledger_pb2.Change]) -> None:
        gone = self._view.allocations.keys() - fresh.allocations.keys()
        self._view = fresh
        for change in snapshot:
            self._tell(change)
        for allocation_id in sorted(gone):
            self._tell(ledger_pb2.Change(allocation_gone=allocation_id))
        self.synced.set()

    def _tell(self, change: ledger_pb2.Change) -> None:
        for callback in list(self._callbacks):
            callback(change)

    def _wake(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()


async def _next(stream: AsyncGenerator[ledger_pb2.Changes, None]) -> ledger_pb2.Changes:
    """The next batch. Raises TimeoutError after SILENCE_S; waits twice, so that silence of our own busy event loop
    is not taken for the ledger's."""
    waiting = asyncio.ensure_future(anext(stream))
    try:
        for _ in range(2):
            done, _ = await asyncio.wait({waiting}, timeout=SILENCE_S / 2)
            if done:
                return waiting.result()
        raise TimeoutError
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
