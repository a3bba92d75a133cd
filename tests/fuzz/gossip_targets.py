"""What ledgers tell each other of operations that wait: a message of Pending, from a peer that may say anything."""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry

from hypermesh import operations
from hypermesh.proofs.parameters import DEMO
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_clients.ledger import PENDING_BYTES, pending_envelopes
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Block, execute
from hypermesh_ledger.genesis import app_state, initial_state, make_genesis
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.state import Writes
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier

from ..builders import Member, TrustRoot, allocation, member, registration
from .ledger_targets import loop

CHAIN = "hypermesh-fuzz"
TICKETS = ("space", "stake", "work", "time")
AHEAD_MS = 5 * 3_600_000
"""The newest block is of then: an operation's validity ends only minutes after it."""


@dataclass(frozen=True)
class World:
    """A ledger with a node and an operator, and all that they and a newcomer ever signed."""

    core: Core
    signed: frozenset[bytes]


@cache
def world() -> World:
    directory = Path(tempfile.mkdtemp(prefix="hypermesh-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    now_ms, root = time.time_ns() // 1_000_000 + AHEAD_MS, TrustRoot()
    node, newcomer = (member(root, trust_pb2.ROLE_NODE, subject) for subject in ("node-1", "node-2"))
    operator = member(root, trust_pb2.ROLE_OPERATOR, "operator")

    def signed(who: Member, **kind: object) -> bytes:
        operation = ledger_pb2.Operation(chain_id=CHAIN, valid_until_ms=now_ms + operations.VALIDITY_MS, **kind)  # type: ignore[arg-type]
        refs = None if "enrol_node" in kind else proofs_pb2.TicketRefs(**dict.fromkeys(TICKETS, bytes(32)))
        return operations.build(operation, who.keypair.public, who.keypair.secret, refs)

    def enrolment(who: Member) -> bytes:
        return signed(who, enrol_node=ledger_pb2.EnrolNode(certificate=who.certificate))

    store = Store(directory)
    _commit(
        store,
        now_ms,
        dict(initial_state(CHAIN, json.dumps(app_state(make_genesis(root.keypair.public, DEMO))).encode())),
    )
    block = Block(store.head.height + 1, now_ms, bytes(32), [enrolment(node), enrolment(operator)])
    _commit(store, now_ms, execute(store.snapshot, block, verify_now).writes)
    cpu = registration(node, ledger_pb2.ASSET_TYPE_CPU, "cpu-0", 100)
    made = [
        *(signed(operator, allocate=allocation(node, cpu, uid, 1)) for uid in ("a", "b")),
        signed(operator, release=ledger_pb2.Release(allocation_id=bytes(32))),
        enrolment(newcomer),
    ]
    core = Core(store, Verdicts(Verifier()), Pool(gossip=True), Metrics(CollectorRegistry()))
    return World(core, frozenset(made))


def _commit(store: Store, now_ms: int, writes: Writes) -> None:
    prepared = store.prepare(store.head.height + 1, now_ms, writes)
    store.commit(prepared)
    store.advance(prepared)


async def _hear(core: Core, told: Sequence[bytes]) -> None:
    for decoded in await core.admission.hear(told):  # of signers who are not enrolled yet
        with contextlib.suppress(Refused):
            await core.admission.admit(decoded.raw, decoded.tx_hash, decoded, heard=True)


def pending(data: bytes) -> None:
    """Nothing waits here afterwards but what somebody has signed, however it was told."""
    core = world().core
    core.pool = Pool(gossip=True)
    for message in (data, ledger_pb2.PendingResponse(envelopes=[data, data]).SerializeToString()):
        try:
            told = pending_envelopes(message)
        except ValueError:
            continue
        assert sum(map(len, told)) <= PENDING_BYTES
        loop().run_until_complete(_hear(core, told))
    waiting = {tx for some in core.pool.all(PENDING_BYTES) for tx in some}
    assert waiting <= world().signed
    assert not core.pool.untold(PENDING_BYTES), "its peer tells all others"


GOSSIP_TARGETS = {target.__name__: target for target in (pending,)}


def gossip_seeds() -> dict[str, list[bytes]]:
    """All together, and each by itself; all of them are admitted."""
    every = sorted(world().signed)
    together = ledger_pb2.PendingResponse(envelopes=every).SerializeToString()
    return {"pending": [together, *every]}
