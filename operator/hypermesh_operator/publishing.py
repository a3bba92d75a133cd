"""Secret first, then ProxyMapping: who sees the mapping can rely on the Secret.

Grant -> manifests -> server-side apply;   an older grant's mapping of the same name is deleted first

The operator may write Secrets but neither get, list nor watch them, so a Secret that somebody deleted or changed is
found by applying it again now and then (see sweep), which writes nothing where nothing is wrong. A write answers with
the object: so access Secrets are readable by name after all; other types are not, since admission refuses the write.
"""

from __future__ import annotations

from hypermesh.resources import OPERATOR_MANAGER, access_secret_name
from hypermesh_clients.kube import Conflict, Invalid, Kube, KubeError, NotFound, Unavailable
from hypermesh_clients.kube_resources import PROXY_MAPPINGS, SECRETS
from hypermesh_clients.kube_secrets import contents
from hypermesh_operator import identity, manifests, statuses
from hypermesh_operator.announcing import Announcer
from hypermesh_operator.inventory import Inventory
from hypermesh_operator.objects import Allocation, Grant
from hypermesh_operator.signing import Keys
from hypermesh_operator.statuses import Names, Verdict


class Publisher:
    """Writes what stands for a grant in the tenant's namespace."""

    def __init__(self, kube: Kube, inventory: Inventory, keys: Keys, ca_pem: bytes, announcer: Announcer) -> None:
        self._kube = kube
        self._inventory = inventory
        self._keys = keys
        self._ca_pem = ca_pem
        self._announcer = announcer

    async def publish(self, allocation: Allocation, grant: Grant, names: Names) -> Verdict | None:
        """None when both are there. A server that is away raises (and is tried again); a refusal is told."""
        if not names.node:
            text = f"The ledger has not told yet which node holds asset {grant.asset_id.hex()[:16]}."
            return Verdict("AssetUnknown", text, retry_s=1.0)
        try:
            token = self._keys.token(grant.allocation_id)
            secret = None
            if manifests.capability_hash(token) == grant.capability_hash:
                secret = await self._apply_secret(allocation, grant, token)
            elif not await self._stands(allocation, grant):
                return _token_key_changed(allocation)
            await self._apply_mapping(allocation, grant, names)
        except Unavailable:
            raise
        except KubeError as error:
            return Verdict(statuses.PUBLISH_FAILED, str(error), retry_s=10.0)
        self._inventory.published(allocation.uid, secret)
        return None

    async def withdraw(self, allocation: Allocation) -> None:
        """Deletes the ProxyMapping; the Secret goes with the Allocation."""
        mapping = self._inventory.mapping(allocation)
        if mapping is not None:
            await self._delete(allocation, mapping.uid)

    async def _apply_secret(self, allocation: Allocation, grant: Grant, token: str) -> str:
        """Returns its uid; one that took the place of another is told of."""
        body = manifests.access_secret(allocation, grant, token, self._ca_pem)
        answer = await self._kube.apply(SECRETS, body, field_manager=OPERATOR_MANAGER)
        uid, before = str(answer["metadata"]["uid"]), self._inventory.secret(allocation.uid)
        if before not in (None, uid):
            note = f"Secret {access_secret_name(allocation.name)} was gone: it is written again, with the same token."
            self._announcer.say(allocation, "AccessSecretRestored", note, "Publish", warning=True)
        return uid

    async def _stands(self, allocation: Allocation, grant: Grant) -> bool:
        """Whether the Secret with the granted token is still there, which we could not make again.

        A patch of nothing, whose answer is read.
        """
        name = access_secret_name(allocation.name)
        try:
            answer = await self._kube.merge_patch(SECRETS, name, {}, allocation.namespace)
        except NotFound:
            return False
        token = contents(answer).get("token", b"").decode(errors="replace")
        return manifests.capability_hash(token) == grant.capability_hash

    async def _apply_mapping(self, allocation: Allocation, grant: Grant, names: Names) -> None:
        held = self._inventory.mapping(allocation)
        if held is not None and held.shows(grant, allocation.uid):
            return
        if held is not None:
            await self._delete(allocation, held.uid)
        body = manifests.proxy_mapping(allocation, grant, names)
        try:
            answer = await self._kube.apply(PROXY_MAPPINGS, body, field_manager=OPERATOR_MANAGER)
        except Invalid:  # one that we have not seen stands there; a mapping's spec never changes
            await self._delete(allocation, None)
            answer = await self._kube.apply(PROXY_MAPPINGS, body, field_manager=OPERATOR_MANAGER)
        self._inventory.see_mapping(answer)

    async def _delete(self, allocation: Allocation, uid: str | None) -> None:
        try:
            await self._kube.delete(PROXY_MAPPINGS, allocation.name, allocation.namespace, uid=uid)
        except Conflict:
            return  # another has taken its place: the watch tells
        self._inventory.forget_mapping(allocation)


def _token_key_changed(allocation: Allocation) -> Verdict:
    text = (
        f"Secret {access_secret_name(allocation.name)} is gone or changed, and its token was made from another key "
        f"than this operator's. Restore that key in Secret {identity.SECRET} and restart hypermesh-operator, or delete "
        "this Allocation and apply it anew."
    )
    return Verdict(statuses.TOKEN_KEY_CHANGED, text, retry_s=60.0)
