"""Shows this node's Assets in the cluster: watches its own Asset resources and writes them when they say less than the
truth, at most once a second each.

    watch (what the API shows) + directory, ledger, problems (the truth) -> create | apply | delete

Losing the watch, the API server or this process loses nothing: the next round compares everything again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final

from hypermesh.resources import AGENT_MANAGER, NODE_LABEL, node_label
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_errors import AlreadyExists, KubeError
from hypermesh_clients.kube_resources import ASSETS, NODES
from hypermesh_clients.kube_watch import WatchType
from hypermesh_clients.mirror import Mirror, TicketsMissing

from .directory import AssetDirectory, NodeAsset
from .hardware import Kind
from .identity import NodeIdentity
from .registrar import Registrar
from .registration import sharing_of
from .views import (
    Ledger,
    Object,
    Proofs,
    asset_body,
    asset_status,
    differs,
    gone_status,
    proofs_of,
    same_body,
    with_sharing,
)

_log = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
"""Shortest time between two writes of one Asset."""
RECHECK_S: Final = 30.0
RETRY_S: Final = 2.0


class Publisher:
    """`run()` for ever beside `follow()`; `wake()` after any change."""

    def __init__(
        self,
        kube: Kube,
        mirror: Mirror,
        identity: NodeIdentity,
        directory: AssetDirectory,
        registrar: Registrar,
        unknown: Callable[[], Collection[Kind]],
        proving: Callable[[], str | None],
        serving: Callable[[], str | None],
        privacy_level: str,
        wrote: Callable[[str], None],
    ) -> None:
        self._kube = kube
        self._mirror = mirror
        self._identity = identity
        self._directory = directory
        self._registrar = registrar
        self._unknown = unknown
        self._proving = proving
        self._serving = serving
        self._privacy_level = privacy_level
        self._wrote = wrote
        self._shown: dict[str, Object] = {}
        self._written: dict[str, float] = {}
        self._owner: tuple[float, Object] | None = None
        self._wake = asyncio.Event()
        self.watch = kube.watch(ASSETS, label_selector=f"{NODE_LABEL}={node_label(identity.name)}")

    def wake(self) -> None:
        self._wake.set()

    async def follow(self) -> None:
        """Keeps what the API shows, and tells the registrar what owners want."""
        async for event in self.watch:
            if event.type is WatchType.SYNCED:
                self._registrar.wake()
                self.wake()
                continue
            name = event.object["metadata"]["name"]
            if event.type is WatchType.DELETED:
                self._shown.pop(name, None)
            else:
                self._show(event.object)
            self.wake()

    async def run(self) -> None:
        """Compares and writes after every wake, and every half minute."""
        await self._mirror.synced.wait()
        await self.watch.synced.wait()
        while True:
            self._wake.clear()
            wait = await self._round()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                    await asyncio.sleep(0.02)  # changes of one moment make one write
            except TimeoutError:
                continue

    async def _round(self) -> float:
        """Writes what differs; returns seconds until something postponed is due."""
        wait = RECHECK_S
        wanted = {asset.name: asset for asset in self._directory}
        for name in sorted({*wanted, *self._shown}):
            since = time.monotonic() - self._written.get(name, -INTERVAL_S)
            try:
                if since < INTERVAL_S:
                    wait = min(wait, INTERVAL_S - since)
                elif name in wanted:
                    await self._write(wanted[name])
                else:
                    await self._leave(name)
            except KubeError as error:
                _log.warning("%s", error)
                wait = min(wait, RETRY_S)
        self._written = {name: at for name, at in self._written.items() if name in wanted or name in self._shown}
        return wait

    async def _write(self, asset: NodeAsset) -> None:
        body = asset_body(asset, self._identity.name, await self._node())
        shown = self._shown.get(asset.name)
        if shown is None:
            try:
                shown = await self._kube.create(
                    ASSETS, with_sharing(body, self._privacy_level), field_manager=AGENT_MANAGER
                )
                _log.info("Asset %s is published", asset.name)
            except AlreadyExists:
                shown = await self._kube.get(ASSETS, asset.name)
            self._show(shown)
            self._note(asset.name)
        if not same_body(shown, body):
            shown = await self._kube.apply(ASSETS, body, field_manager=AGENT_MANAGER)
            self._show(shown)
            self._note(asset.name)
        ledger = self.ledger_view(asset)
        present = shown.get("status") or {}
        status = asset_status(asset, ledger, shown["metadata"]["generation"], present, datetime.now(UTC))
        if differs(present, status, ledger.epoch, ledger.grace):
            await self._write_status(asset.name, status)

    async def _leave(self, name: str) -> None:
        """An Asset without hardware: goes when the ledger holds nothing of it, else says what it waits for."""
        shown = self._shown[name]
        if shown["spec"]["type"] in self._unknown():
            return  # absent from a survey that could not see it
        asset_id = bytes.fromhex((shown.get("status") or {}).get("assetID", ""))
        record = self._mirror.assets.get(asset_id)
        if record is None or record.retired or record.node != self._identity.key_id:
            await self._kube.delete(ASSETS, name, uid=shown["metadata"]["uid"])
            _log.info("Asset %s is gone", name)
            self._shown.pop(name, None)
            return
        present = shown.get("status") or {}
        status = gone_status(record, shown["metadata"]["generation"], present, datetime.now(UTC))
        if differs(present, status, 0, 0):
            await self._write_status(name, status)

    async def _write_status(self, name: str, status: Object) -> None:
        body = {"metadata": {"name": name}, "status": status}
        self._show(await self._kube.apply(ASSETS, body, field_manager=AGENT_MANAGER, subresource="status"))
        self._note(name)

    def _note(self, name: str) -> None:
        self._written[name] = time.monotonic()
        self._wrote(name)

    def _show(self, shown: Object) -> None:
        """Takes an object from the API, unless a newer one of it is there already."""
        name = shown["metadata"]["name"]
        shown["metadata"].pop("managedFields", None)
        known = self._shown.get(name)
        if known is None or int(known["metadata"]["resourceVersion"]) <= int(shown["metadata"]["resourceVersion"]):
            self._shown[name] = shown
            if known is None or known["metadata"]["generation"] != shown["metadata"]["generation"]:
                self._registrar.wake()

    def sharing(self) -> dict[bytes, ledger_pb2.Sharing]:
        """What owners want, by asset id, of the Assets that the API shows."""
        return {
            asset.asset_id: sharing_of(self._shown[asset.name]["spec"])
            for asset in self._directory
            if asset.name in self._shown
        }

    def ledger_view(self, asset: NodeAsset) -> Ledger:
        """What the ledger says of an asset now."""
        node = self._mirror.nodes.get(self._identity.key_id)
        return Ledger(
            record=self._mirror.assets.get(asset.asset_id),
            proofs=self._proofs(asset),
            epoch=self._mirror.epoch.number,
            grace=self._mirror.parameters.grace_epochs,
            trust_score=node.trust_score if node is not None else 0,
            problem=self._registrar.problems.get(asset.asset_id),
            proving=self._proving(),
            serving=self._serving(),
        )

    def _proofs(self, asset: NodeAsset) -> Proofs | None:
        node = self._identity.key_id
        try:
            refs = self._mirror.ticket_refs(node, asset.work_device, node)
        except TicketsMissing:
            return None
        view = self._mirror.view
        return proofs_of(
            refs,
            [
                view.tickets[proofs_pb2.PROOF_KIND_SPACE, node],
                view.tickets[proofs_pb2.PROOF_KIND_TIME, node],
                view.work_tickets[node, asset.work_device],
            ],
        )

    async def _node(self) -> Object:
        """The Node as owner of its Assets: deleted, the cluster collects them; made anew, it has another uid."""
        if self._owner is None or time.monotonic() - self._owner[0] > RECHECK_S:
            node = await self._kube.get(NODES, self._identity.name)
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._identity.name, "uid": node["metadata"]["uid"]}
            self._owner = time.monotonic(), owner
        return self._owner[1]
