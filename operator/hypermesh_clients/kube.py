"""A thin, typed client of the Kubernetes API: requests in, decoded JSON objects out, errors as types.

Why not the official client: it costs most of a controller's memory and its models hide server-side apply.
Here one keep-alive pool of connections carries every request, objects stay plain dictionaries, and each
caller states what it wants (`apply`, `merge_patch`, …) rather than how.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypermesh_clients import kube_config
from hypermesh_clients.kube_errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Unavailable,
)
from hypermesh_clients.kube_resources import EVENTS, TOKEN_REVIEWS, Object, Resource
from hypermesh_clients.kube_transport import APPLY_PATCH, MERGE_PATCH, PAGE_SIZE, Transport
from hypermesh_clients.kube_views import TokenReview, event_body, micro_time
from hypermesh_clients.kube_watch import Watch, WatchEvent, WatchType

__all__ = [
    "AlreadyExists",
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "Kube",
    "KubeError",
    "NotFound",
    "Object",
    "Objects",
    "Resource",
    "TokenReview",
    "Unavailable",
    "Watch",
    "WatchEvent",
    "WatchType",
    "micro_time",
]

Objects = list[Object]


class Kube(Transport):
    """The API of one cluster. Use as `async with Kube.auto() as kube`, or `close()` it; bound to one event loop."""

    @classmethod
    def in_cluster(cls, **options: Any) -> Kube:
        """The client of a pod; `options` as the constructor's. Raises ConfigError."""
        return cls(kube_config.in_cluster(), **options)

    @classmethod
    def from_kubeconfig(cls, path: Path | None = None, context: str | None = None, **options: Any) -> Kube:
        """The client of a kubeconfig's context. Raises ConfigError."""
        return cls(kube_config.from_kubeconfig(path, context), **options)

    @classmethod
    def auto(cls, **options: Any) -> Kube:
        """Of the pod we run in, else of the kubeconfig. Raises ConfigError."""
        if (kube_config.SERVICE_ACCOUNT / "token").exists():
            return cls.in_cluster(**options)
        return cls.from_kubeconfig(**options)

    # -- reading ---------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """One object. Raises NotFound, Forbidden, Unavailable."""
        return await self.request(
            "GET",
            resource.path(namespace, name, subresource),
            about=resource.describe(namespace, name),
            idempotent=True,
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Objects:
        """All objects of one consistent snapshot, page by page (items lack apiVersion and kind, as served)."""
        for size in (
            page_size,
            page_size,
            0,
        ):  # a snapshot may be compacted away between pages: at last in one
            items: Objects = []
            try:
                async for page in self.pages(
                    resource,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    page_size=size,
                ):
                    items.extend(page["items"] or ())
            except Expired:
                if size == 0:
                    raise
                continue
            return items
        raise AssertionError("unreachable")

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        inactivity: float = 100.0,
    ) -> Watch:
        """An endless `async for` over WatchEvents that lists first; see `Watch`. `inactivity` in seconds."""
        return Watch(
            self,
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            inactivity=inactivity,
        )

    # -- writing ---------------------------------------------------------------------------------------

    async def create(
        self,
        resource: Resource,
        body: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """POST of `body` (namespace from its metadata unless given); `name` + `subresource` for e.g. TokenRequest.

        A dry run passes admission and is not stored.
        """
        metadata = body.get("metadata") or {}
        namespace = namespace or metadata.get("namespace")
        shown = name or metadata.get("name") or metadata.get("generateName", "")
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        query = {"fieldManager": field_manager} if field_manager else {}
        if dry_run:
            query["dryRun"] = "All"
        return await self.request(
            "POST",
            resource.path(namespace, name, subresource),
            about=resource.describe(namespace, shown),
            body=full,
            query=query,
        )

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        field_manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> Object:
        """Server-side apply (KEP-555): `body` is the whole wish of `field_manager` for metadata.name.

        What the manager applied earlier and no longer wishes is removed; others' fields stay. With
        `force=False` a field of another manager raises Conflict.
        """
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            about=resource.describe(namespace, name),
            body={"apiVersion": resource.api_version, "kind": resource.kind, **body},
            query={"fieldManager": field_manager, "force": "true" if force else "false"},
            content_type=APPLY_PATCH,
            idempotent=True,
        )

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Object:
        """RFC 7386 patch of an existing object. With metadata.resourceVersion in it: Conflict if changed since."""
        guarded = bool((patch.get("metadata") or {}).get("resourceVersion"))
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            about=resource.describe(namespace, name),
            body=patch,
            query={"fieldManager": field_manager} if field_manager else None,
            content_type=MERGE_PATCH,
            idempotent=not guarded,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
        missing_ok: bool = True,
    ) -> None:
        """Asks for deletion (finalizers may delay it). With `uid`, Conflict if it is another object by now."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request(
                "DELETE",
                resource.path(namespace, name),
                about=resource.describe(namespace, name),
                body=options,
                idempotent=missing_ok,
            )
        except NotFound:
            if not missing_ok:
                raise

    async def token_review(self, token: str, audiences: tuple[str, ...]) -> TokenReview:
        """Asks the API server whose `token` this is; not authenticated when it lacks every audience."""
        answer = await self.request(
            "POST",
            TOKEN_REVIEWS.path(),
            about="TokenReview",
            body={
                "apiVersion": TOKEN_REVIEWS.api_version,
                "kind": TOKEN_REVIEWS.kind,
                "spec": {"token": token, "audiences": [*audiences]},
            },
            idempotent=True,  # creates nothing
        )
        return TokenReview.from_object(answer)

    async def event(
        self,
        resource: Resource,
        regarding: Object,
        *,
        reason: str,
        note: str,
        action: str,
        controller: str,
        instance: str,
        warning: bool = False,
    ) -> None:
        """Records an events.k8s.io/v1 Event on `regarding` (its metadata is read); note is cut at 1 kB."""
        body = event_body(
            resource,
            regarding,
            reason=reason,
            note=note,
            action=action,
            controller=controller,
            instance=instance,
            warning=warning,
        )
        await self.create(EVENTS, body)
