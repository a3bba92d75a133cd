"""One allocation's way on its node: verify, enforce, open, and the way back. Programming happens for many at once.

    record ACTIVE   -> verify -> ensure region or hold -> desk opens the address -> Prepared (to be programmed)
    record ended    -> desk closes the address -> region removed -> Ended (to be unprogrammed)
    record replaced -> while its region is made, or by one with another address: Replaced (to be looked at again)
    after a restart, what an earlier run prepared is expected: asked for, it says "soon", and it ends like the prepared

`Keeper` knows what it prepared, so that a record told twice changes nothing. It asks the ledger's mirror for the
newest record whenever it works, and never trusts what it was told. A ledger that lost its volume begins a new chain:
the same allocation may come again on it, at a lower height.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import NamedTuple

from hypermesh.v1 import ledger_pb2
from hypermesh_agent.directory import AssetDirectory
from hypermesh_agent.enforcement.enforcer import Enforcer
from hypermesh_agent.enforcement.grants import EnforcementFailed, Grant
from hypermesh_agent.proxy.mappings import TCP, Key, Target
from hypermesh_agent.proxy.outcomes import Outcome
from hypermesh_agent.proxy.verification import Claim, Refusal, Standpoint, verify
from hypermesh_agent.serving.authorization import Desk, Served
from hypermesh_clients.mirror import Mirror

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """Where a record stands that this node let in. Heights compare on one chain only."""

    chain_id: str
    height: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Enforced and answering; what remains is the kernel's translation."""

    grant: Grant
    key: Key
    target: Target
    seen: Seen


@dataclass(frozen=True, slots=True)
class Failed:
    """Not to be programmed, for a reason that people see."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """Taken down; key is None when nothing had been prepared."""

    key: Key | None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The ledger holds another record by now, to be looked at; key is what must not be translated any more, if any."""

    key: Key | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What an earlier run prepared, or what waits to be prepared again: its region may be there."""

    grant: Grant
    key: Key


class Keeper:
    """Calls for one allocation id must not overlap. target: this node's address, 16 bytes, and the service's port."""

    def __init__(
        self,
        mirror: Mirror,
        here: Standpoint,
        enforcer: Enforcer,
        desk: Desk,
        directory: AssetDirectory,
        node_name: str,
        target: tuple[bytes, int],
    ) -> None:
        self._mirror = mirror
        self._here = here
        self._enforcer = enforcer
        self._desk = desk
        self._directory = directory
        self._node_name = node_name
        self._target = target
        self._prepared: dict[bytes, Prepared] = {}
        self._expected: dict[bytes, Expected] = {}
        self._seen: dict[bytes, Seen] = {}

    @property
    def prepared(self) -> Mapping[bytes, Prepared]:
        """By allocation id."""
        return self._prepared

    def active(self, allocation_id: bytes) -> ledger_pb2.AllocationRecord | None:
        """This node's active record, None when there is none (any more)."""
        record = self.known(allocation_id)
        return record if record is not None and record.state == ledger_pb2.ALLOCATION_STATE_ACTIVE else None

    def records(self) -> list[ledger_pb2.AllocationRecord]:
        """All of this node's, in whatever state."""
        return [record for record in self._mirror.allocations.values() if record.node == self._here.key_id]

    def known(self, allocation_id: bytes) -> ledger_pb2.AllocationRecord | None:
        """This node's record in whatever state."""
        record = self._mirror.allocations.get(allocation_id)
        return record if record is not None and record.node == self._here.key_id else None

    def check(self, record: ledger_pb2.AllocationRecord) -> Claim | Refusal:
        """The chain of verification.py with what the mirror holds now."""
        here = replace(self._here, chain_id=self._mirror.chain_id)
        seen = self._seen.get(record.allocation_id)
        height = seen.height if seen is not None and seen.chain_id == here.chain_id else 0
        return verify(record, here, self._mirror.nodes, self._mirror.assets, now_ms(), height)

    def take_over(self, record: ledger_pb2.AllocationRecord, standing: Set[Key]) -> tuple[Key, Target] | None:
        """What the kernel may go on translating; None for a record that does not verify.

        standing: what the kernel translates by the word of an earlier run, which thus let those tenants in.
        """
        address, port = signed_address(record)
        if Key(address, TCP, port) in standing:
            self._seen.setdefault(record.allocation_id, Seen(self._mirror.chain_id, 1))
        claim = self.check(record)
        if isinstance(claim, Refusal):
            return None
        key, target = self._mapping(claim)
        self._expect(_grant(claim), key)
        return key, target

    def _mapping(self, claim: Claim) -> tuple[Key, Target]:
        """What the kernel is to translate for a verified claim."""
        key = Key(claim.operation.address, TCP, claim.operation.port)
        return key, Target(*self._target, claim.record.expires_ms)

    def _expect(self, grant: Grant, key: Key) -> None:
        self._expected[grant.id] = Expected(grant, key)
        self._desk.expect(key.address)

    async def prepare(self, record: ledger_pb2.AllocationRecord) -> Prepared | Failed | Replaced:
        """Verifies and enforces, unless that is done already."""
        held = self._prepared.get(record.allocation_id)
        seen = Seen(self._mirror.chain_id, record.height)
        if held is not None and held.seen == seen and held.target.expires_ms == record.expires_ms:
            return held
        claim = self.check(record)
        if isinstance(claim, Refusal) and held is not None:
            _log.warning("a newer record of allocation %s is ignored: %s", held.grant.name, claim.message)
            return held  # what stands was verified; a replayed or forged record must not cost the tenant its bytes
        if isinstance(claim, Refusal):
            return Failed(self._failure(record, claim.reason, claim.message))
        operation, asset = claim.operation, claim.asset
        grant = _grant(claim)
        key, target = self._mapping(claim)
        before = held or self._expected.get(record.allocation_id)
        if before is not None and (before.grant, before.key) != (grant, key):
            return Replaced((await self.end(record.allocation_id)).key)
        try:
            region = await self._enforcer.ensure(grant)
        except EnforcementFailed as error:
            return Failed(self._failure(record, error.reason, str(error)))
        if self.active(record.allocation_id) != record:
            if held is None:
                self._expect(grant, key)  # its region is there, and goes when the allocation ends
            return Replaced(None)
        self._desk.open(
            Served(
                address=operation.address,
                capability_hash=operation.capability_hash,
                type=grant.type,
                amount=grant.amount,
                expires_ms=record.expires_ms,
                node_name=self._node_name,
                asset_name=asset.registration.name,
                attributes=lambda: self._attributes(operation.asset_id),
                region=region,
            )
        )
        self._seen[record.allocation_id] = seen
        prepared = Prepared(grant, key, target, seen)
        self._prepared[record.allocation_id] = prepared
        self._expected.pop(record.allocation_id, None)
        return prepared

    def suspend(self, allocation_id: bytes) -> Key | None:
        """It can't be prepared now: what is not to be translated until it is. The tenant's bytes stay."""
        if (held := self._prepared.pop(allocation_id, None)) is not None:
            self._desk.close(held.key.address)
            self._expect(held.grant, held.key)
        expected = self._expected.get(allocation_id)
        return expected.key if expected is not None else None

    async def end(self, allocation_id: bytes) -> Ended:
        """Takes down what was prepared, by whichever run; the tenant's bytes are gone after it."""
        held = self._prepared.get(allocation_id) or self._expected.get(allocation_id)
        if held is None:
            return Ended(None)
        self._desk.close(held.key.address)
        await self._enforcer.remove(held.grant)
        self._prepared.pop(allocation_id, None)
        self._expected.pop(allocation_id, None)
        return Ended(held.key)

    def forget(self, allocation_id: bytes) -> None:
        """The ledger holds no record of it any more."""
        self._seen.pop(allocation_id, None)

    def _attributes(self, asset_id: bytes) -> Mapping[str, str]:
        asset = self._directory.get(asset_id)
        return asset.attributes() if asset else {}

    def _failure(self, record: ledger_pb2.AllocationRecord, reason: str, message: str) -> Outcome:
        address, port = signed_address(record)
        text = f"node {self._node_name} refuses the mapping of {IPv6Address(address)}: {message}"
        return Outcome(address, port, reason, text)


def _grant(claim: Claim) -> Grant:
    return Grant(claim.record.allocation_id, claim.asset.registration.type, claim.operation.amount)


def signed_address(record: ledger_pb2.AllocationRecord) -> tuple[bytes, int]:
    """Address (16 bytes) and port out of a record that may be damaged: then zeros."""
    try:
        envelope = ledger_pb2.Envelope.FromString(record.envelope)
        operation = ledger_pb2.Operation.FromString(envelope.operation).allocate
    except Exception:  # noqa: BLE001 - whatever the parser dislikes, the refusal must still be shown
        return bytes(16), 0
    return (operation.address if len(operation.address) == 16 else bytes(16)), operation.port


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
