"""From a choice to a committed operation: builds, signs and submits Allocate and Release.

Allocation + Candidate -> Allocate -> signed Envelope (four tickets named) -> ledger -> Commit | Refused
"""

from __future__ import annotations

import time
from typing import Final

from hypermesh import addressing
from hypermesh.resources import ASSET_TYPES, RESOURCE_PORT
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_clients.ledger import Commit, LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_operator import manifests
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.policies.model import Candidate
from hypermesh_operator.pool import Flight
from hypermesh_operator.signing import Signer

VALID_FOR_MS: Final = 60_000
"""How long an operation may wait for a block: longer than any election of a proposer, shorter than a person waits."""


class Submitter:
    """Speaks to the ledger in the operator's name."""

    def __init__(self, client: LedgerClient, mirror: Mirror, signer: Signer) -> None:
        self._client = client
        self._mirror = mirror
        self._signer = signer
        self.keys = signer.keys

    def prepare(self, allocation: Allocation, choice: Candidate, attempt: int) -> Flight:
        """The Allocate, not signed yet; attempt numbers the address. Raises TicketsMissing."""
        counter = addressing.allocation_counter(allocation.allocation_id, attempt)
        node = self._mirror.nodes[choice.node]
        body = trust_pb2.CertificateBody.FromString(node.certificate.body)
        address = addressing.asset_address(
            body.federation,
            body.cluster,
            choice.node,
            body.node_counter,
            addressing.AddressType.of_asset(ASSET_TYPES[choice.type]),
            choice.hardware_id,
            counter,
        )
        spec = allocation.spec
        operation = self._operation()
        operation.allocate.CopyFrom(
            ledger_pb2.Allocate(
                allocation_id=allocation.allocation_id,
                namespace=allocation.namespace,
                name=allocation.name,
                uid=allocation.uid,
                asset_id=choice.asset_id,
                amount=spec.amount,
                privacy_level=spec.privacy_level,
                lease_seconds=spec.lease_seconds,
                address=address.packed,
                address_counter=counter,
                port=RESOURCE_PORT,
                capability_hash=manifests.capability_hash(self.keys.token(allocation.allocation_id)),
                max_price_per_hour="" if spec.max_price is None else str(spec.max_price),
                min_trust_score=spec.min_trust,
            )
        )
        return Flight(
            allocation_id=allocation.allocation_id,
            asset_id=choice.asset_id,
            amount=spec.amount,
            operation=operation,
            tickets=self._tickets(choice.node, choice.work_device),
        )

    async def sign(self, flight: Flight) -> None:
        """Fills in the envelope."""
        flight.envelope = await self._signer.sign(flight.operation, flight.tickets)

    async def allocate(self, flight: Flight) -> Commit:
        """Submits it, again and again if need be. Raises Refused or LedgerUnavailable."""
        return await self._client.submit(flight.envelope)

    async def release(self, grant: Grant) -> Commit:
        """Gives it back. Raises Refused, LedgerUnavailable or TicketsMissing."""
        asset = self._mirror.assets[grant.asset_id]
        operation = self._operation()
        operation.release.allocation_id = grant.allocation_id
        tickets = self._tickets(asset.node, asset.registration.work_device)
        return await self._client.submit(await self._signer.sign(operation, tickets))

    def _operation(self) -> ledger_pb2.Operation:
        now = max(int(time.time() * 1000), self._mirror.block_time_ms)
        return ledger_pb2.Operation(chain_id=self._mirror.chain_id, valid_until_ms=now + VALID_FOR_MS)

    def _tickets(self, node: bytes, device: bytes) -> proofs_pb2.TicketRefs:
        return self._mirror.ticket_refs(node, device, self.keys.key_id)
