"""Every so often the truth is asked for again: what no watch, no event and no step would ever tell.

    API server's list -> Allocations that vanished unnoticed -> forgotten
    oldest publications -> doubted -> their Secrets are applied again, which writes only what is missing or changed
    ledger's allocations of this cluster without a resource (orphans) -> released

An Allocation vanishes unnoticed while the watch has a gap: what comes after the gap begins with those that exist.
Orphans come from that, from deletions while the ledger was away, and from a crash between submission and answer. Every
one is asked for by name before it is released: a resource's uid never returns, so an absent one is gone for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.kube import Kube, KubeError, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS
from hypermesh_clients.ledger import LedgerUnavailable
from hypermesh_clients.mirror import Mirror, TicketsMissing
from hypermesh_operator import metrics, objects
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.objects import Grant
from hypermesh_operator.reconciler import Reconciler
from hypermesh_operator.submitting import Submitter

_log = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""Releases, and doubts, of one sweep; the next one takes the rest."""


class Sweep:
    """`run` sweeps every so many seconds."""

    def __init__(
        self, kube: Kube, mirror: Mirror, inventory: Inventory, submitter: Submitter, reconciler: Reconciler
    ) -> None:
        self._kube = kube
        self._mirror = mirror
        self._inventory = inventory
        self._submitter = submitter
        self._reconciler = reconciler

    async def run(self, every_s: float) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.once()
            except (KubeError, LedgerUnavailable) as error:
                _log.info("the sweep is put off: %s", error)
            except Exception:  # noqa: BLE001 - its trouble must not end the leader, which works without it
                _log.warning("the sweep is put off", exc_info=True)

    async def once(self) -> int:
        """Does all three; returns how many orphans it released."""
        await self._forget_vanished()
        for uid in self._inventory.doubt(AT_ONCE):
            self._reconciler.touch(uid)
        released = 0
        for grant in self._unknown():
            if released >= AT_ONCE:
                break
            if await self._exists(grant) or not self._held(grant):
                continue
            try:
                await self._submitter.release(grant)
            except (Refused, TicketsMissing) as error:
                _log.warning("orphan %s/%s is not released: %s", grant.namespace, grant.name, error)
                continue
            released += 1
            metrics.ORPHANS.inc()
            _log.info("released orphan %s/%s (uid %s)", grant.namespace, grant.name, grant.uid)
        return released

    async def _forget_vanished(self) -> None:
        """Page by page, and uids are all that is asked for: bodies would be most of the memory."""
        missing = set(self._inventory.uids())  # whatever comes after this line is not missing
        async for page in self._kube.pages(ALLOCATIONS, metadata_only=True):
            missing.difference_update(item["metadata"]["uid"] for item in page["items"] or ())
        for uid in missing.intersection(self._inventory.uids()):  # the watch may have told of it meanwhile
            _log.info("Allocation with uid %s vanished unnoticed", uid)
            self._inventory.lose(uid)
            self._reconciler.gone(uid)

    def _unknown(self) -> list[Grant]:
        """Active grants of this cluster for which no resource is known here."""
        active = ledger_pb2.ALLOCATION_STATE_ACTIVE
        records = [
            record
            for allocation_id, record in self._mirror.allocations.items()
            if record.state == active and self._inventory.uid_of(allocation_id) is None
        ]
        grants = (objects.grant(record) for record in records)
        ours = self._signers()
        return [grant for grant in grants if grant.signer in ours]

    def _signers(self) -> frozenset[bytes]:
        """Keys of this cluster's operators, today's and former ones."""
        found = set()
        for key, node in self._mirror.nodes.items():
            body = trust_pb2.CertificateBody.FromString(node.certificate.body)
            if body.role == trust_pb2.ROLE_OPERATOR and body.cluster_uid == self._inventory.cluster_uid:
                found.add(key)
        return frozenset(found)

    def _held(self, grant: Grant) -> bool:
        """Whether it is still there after an await: the ledger may have begun another chain meanwhile."""
        record = self._mirror.allocations.get(grant.allocation_id)
        return record is not None and objects.grant(record) == grant

    async def _exists(self, grant: Grant) -> bool:
        try:
            body = await self._kube.get(ALLOCATIONS, grant.name, grant.namespace)
        except NotFound:
            return False
        return bool(body["metadata"]["uid"] == grant.uid)
