"""`hypermesh-agent delegate`, `revoke`, `share`, `release`: what a person tells the ledger with this node's key.

    node's papers -> mirror of the whole ledger -> one operation -> committed: one sentence, or why not

`delegate` and `revoke` are the owner's side; `share` and `release` are the delegate's, run where the delegate's key is.
What the owner itself wants is said in the Asset's spec, which the agent follows. See docs/decisions/0052-delegation.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from hypermesh import quantities
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror, TicketsMissing

from .submitting import Submitter

RIGHTS: Final = {
    "sharing": ledger_pb2.DELEGATION_RIGHT_SHARING,
    "release": ledger_pb2.DELEGATION_RIGHT_RELEASE,
}
PATIENCE_S: Final = 30.0

Found = TypeVar("Found")


class Unclear(Exception):
    """What was asked for names nothing, or several things."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A key, and the ledger as it is seen from it."""

    mirror: Mirror
    submitter: Submitter
    key_id: bytes

    @property
    def revision(self) -> int:
        """Of the key's own delegations."""
        held = self.mirror.delegations.get(self.key_id)
        return 0 if held is None else held.revision


async def delegate(desk: Desk, to: bytes, rights: list[str], days: float) -> str:
    """Raises Refused, LedgerUnavailable."""
    until_ms = int((time.time() + days * 86_400) * 1000)
    given = sorted({RIGHTS[right] for right in rights})
    operation = ledger_pb2.Delegate(delegate=to, rights=given, until_ms=until_ms, revision=desk.revision)
    commit = await desk.submitter.submit(ledger_pb2.Operation(delegate=operation))
    return f"delegated {', '.join(sorted(set(rights)))} to {to.hex()} for {days:g} days, at height {commit.height}"


async def revoke(desk: Desk, to: bytes) -> str:
    """Raises Refused, LedgerUnavailable."""
    operation = ledger_pb2.Revoke(delegate=to, revision=desk.revision)
    commit = await desk.submitter.submit(ledger_pb2.Operation(revoke=operation))
    return f"revoked all rights of {to.hex()} at height {commit.height}"


async def share(desk: Desk, name: str, paused: bool | None, price: str | None) -> str:
    """Pauses, opens or prices an asset. Raises Unclear, QuantityInvalid, TicketsMissing, Refused, LedgerUnavailable."""
    if paused is None and price is None:
        raise Unclear("nothing to say: give --pause, --open or --price")
    record = asset_named(desk.mirror.assets, name)
    operation = ledger_pb2.UpdateAsset(
        asset_id=record.registration.asset_id, revision=record.revision, capacity=record.registration.capacity
    )
    operation.sharing.CopyFrom(record.registration.sharing)
    if paused is not None:
        operation.sharing.paused = paused
    if price is not None:
        operation.sharing.price_per_hour = str(quantities.parse_caesar(price))
    refs = desk.mirror.ticket_refs(record.node, record.registration.work_device, desk.key_id)
    commit = await desk.submitter.submit(ledger_pb2.Operation(update_asset=operation), refs)
    state = "paused" if operation.sharing.paused else "open"
    cost = quantities.render_caesar(int(operation.sharing.price_per_hour or "0"))
    return f"{record.registration.name} is {state} at {cost} Caesar an hour since height {commit.height}"


async def release(desk: Desk, allocation_id: bytes) -> str:
    """Raises Unclear, TicketsMissing, Refused, LedgerUnavailable."""
    held = desk.mirror.allocations.get(allocation_id)
    if held is None:
        raise Unclear(f"the ledger holds no allocation {allocation_id.hex()}: see hypermesh-ledger state")
    allocate = ledger_pb2.Operation.FromString(ledger_pb2.Envelope.FromString(held.envelope).operation).allocate
    record = desk.mirror.assets[allocate.asset_id]
    refs = desk.mirror.ticket_refs(record.node, record.registration.work_device, desk.key_id)
    operation = ledger_pb2.Release(allocation_id=allocation_id)
    commit = await desk.submitter.submit(ledger_pb2.Operation(release=operation), refs)
    return f"released {allocate.namespace}/{allocate.name} at height {commit.height}"


def asset_named(assets: Mapping[bytes, ledger_pb2.AssetRecord], text: str) -> ledger_pb2.AssetRecord:
    """By name or by id in hex. Raises Unclear."""
    found = [
        record
        for asset_id, record in assets.items()
        if not record.retired and text in (record.registration.name, asset_id.hex())
    ]
    return _only(found, f"registered asset {text!r}", "its id (hypermesh-ledger state)")


def key_named(nodes: Mapping[bytes, ledger_pb2.NodeRecord], text: str) -> bytes:
    """By key id in hex, or by the name in its certificate when one key only has it. Raises Unclear."""
    found = [
        key_id
        for key_id, record in nodes.items()
        if text in (key_id.hex(), trust_pb2.CertificateBody.FromString(record.certificate.body).subject)
    ]
    return _only(found, f"enrolled key {text!r}", "its key id, 64 hex digits")


def _only(found: list[Found], what: str, instead: str) -> Found:
    if len(found) != 1:
        raise Unclear(f"the ledger holds {len(found) or 'no'} {what}: give {instead}")
    return found[0]


# -- the command line --------------------------------------------------------------------------------------------


async def act(desk: Desk, parsed: argparse.Namespace) -> str:
    """The sentence to print; raises what the deeds raise."""
    match parsed.command:
        case "delegate":
            return await delegate(desk, key_named(desk.mirror.nodes, parsed.to), parsed.right, parsed.days)
        case "revoke":
            return await revoke(desk, key_named(desk.mirror.nodes, parsed.to))
        case "share":
            return await share(desk, parsed.asset, parsed.paused, parsed.price)
    return await release(desk, parsed.allocation)


def run(parsed: argparse.Namespace) -> int:
    """Exit status: 0, or 1 after one sentence on stderr."""
    from .enrolling import TROUBLES, papers  # only here: it brings all clients with it

    async def told() -> str:
        paper = await papers(parsed.namespace, parsed.trustchain, Path(parsed.token_file), Path(parsed.state))
        client = LedgerClient(parsed.ledger, paper.tls.root_pem)
        mirror = Mirror(client)
        following = asyncio.create_task(mirror.run())
        try:
            await mirror.synced.wait()
            desk = Desk(mirror, Submitter(client, mirror, paper.keypair), paper.keypair.key_id())
            return await act(desk, parsed)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await client.close()

    async def bounded() -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await told()

    try:
        sys.stdout.write(asyncio.run(bounded()) + "\n")
    except TimeoutError:
        text = "It may still be done: look with hypermesh-ledger state, and at the ledger's and TrustChain's pods"
        sys.stderr.write(f"no answer within {PATIENCE_S:.0f} s. {text}\n")
        return 1
    except (Unclear, Refused, LedgerUnavailable, TicketsMissing, quantities.QuantityInvalid, *TROUBLES) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
