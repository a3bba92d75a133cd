"""Secret first, then ProxyMapping: who sees the mapping can rely on the Secret.

Grant -> manifests -> server-side apply;   an older grant's mapping of the same name is deleted first
"""

from __future__ import annotations

import logging

from hypermesh.resources import OPERATOR_MANAGER
from hypermesh_clients.kube import Conflict, Invalid, Kube, KubeError, Unavailable
from hypermesh_clients.kube_resources import PROXY_MAPPINGS, SECRETS
from hypermesh_operator import manifests
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.signing import Keys
from hypermesh_operator.statuses import Names, Verdict

_log = logging.getLogger(__name__)


class Publisher:
    """Writes what stands for a grant in the tenant's namespace."""

    def __init__(self, kube: Kube, inventory: Inventory, keys: Keys, ca_pem: bytes) -> None:
        self._kube = kube
        self._inventory = inventory
        self._keys = keys
        self._ca_pem = ca_pem

    async def publish(self, allocation: Allocation, grant: Grant, names: Names) -> Verdict | None:
        """None when both are there. A server that is away raises (and is tried again); a refusal is told."""
        if not names.node:
            text = f"The ledger has not told yet which node holds asset {grant.asset_id.hex()[:16]}."
            return Verdict("AssetUnknown", text, retry_s=1.0)
        try:
            await self._apply_secret(allocation, grant)
            await self._apply_mapping(allocation, grant, names)
        except Unavailable:
            raise
        except KubeError as error:
            return Verdict("PublishFailed", str(error), retry_s=10.0)
        return None

    async def withdraw(self, allocation: Allocation) -> None:
        """Deletes the ProxyMapping; the Secret goes with the Allocation."""
        mapping = self._inventory.mapping(allocation)
        if mapping is not None:
            await self._delete(allocation, mapping.uid)

    async def _apply_secret(self, allocation: Allocation, grant: Grant) -> None:
        token = self._keys.token(grant.allocation_id)
        if manifests.capability_hash(token) != grant.capability_hash:
            _log.error(
                "Allocation %s was granted under another token key: its Secret is left as it is. Restore Secret "
                "hypermesh-operator-key, or delete the Allocation and apply it anew",
                allocation.reference,
            )
            return
        body = manifests.access_secret(allocation, grant, token, self._ca_pem)
        await self._kube.apply(SECRETS, body, field_manager=OPERATOR_MANAGER)

    async def _apply_mapping(self, allocation: Allocation, grant: Grant, names: Names) -> None:
        held = self._inventory.mapping(allocation)
        if held is not None and held.allocation_id != grant.allocation_id.hex():
            await self._delete(allocation, held.uid)
        body = manifests.proxy_mapping(allocation, grant, names)
        try:
            answer = await self._kube.apply(PROXY_MAPPINGS, body, field_manager=OPERATOR_MANAGER)
        except Invalid:  # one that we have not seen stands there; a mapping's spec never changes
            await self._delete(allocation, None)
            answer = await self._kube.apply(PROXY_MAPPINGS, body, field_manager=OPERATOR_MANAGER)
        self._inventory.see_mapping(answer)
        self._inventory.published(allocation.uid)

    async def _delete(self, allocation: Allocation, uid: str | None) -> None:
        try:
            await self._kube.delete(PROXY_MAPPINGS, allocation.name, allocation.namespace, uid=uid)
        except Conflict:
            return  # another has taken its place: the watch tells
        self._inventory.forget_mapping(allocation)
