"""A thin, typed client of the Kubernetes API: requests in, decoded JSON objects out, errors as types.

Why not the official client: it costs most of a controller's memory and its models hide server-side apply.
Here one keep-alive pool of connections carries every request, objects stay plain dictionaries, and each
caller states what it wants (`apply`, `merge_patch`, …) rather than how.

Idempotent requests (get, list, apply, patches without a resource version) are repeated for up to `patience`
seconds while the server is away, because restarts of an API server are ordinary. Others raise `Unavailable`
at once: only their caller knows whether doing it twice is harmless.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from hypermesh_clients import kube_config
from hypermesh_clients.kube_config import Connection
from hypermesh_clients.kube_errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Unavailable,
    error_from_status,
)
from hypermesh_clients.kube_resources import EVENTS, TOKEN_REVIEWS, Object, Resource
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
PAGE_SIZE = 500
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class TokenReview:
    """What the API server says about a bearer token. `extra` holds pod and node bindings (KEP-4193)."""

    authenticated: bool
    username: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]
    audiences: tuple[str, ...]
    error: str


def micro_time(seconds: float | None = None) -> str:
    """`metav1.MicroTime` text of Unix `seconds` (default: now)."""
    seconds = time.time() if seconds is None else seconds
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1e6):06d}Z"


class Kube:
    """One API server. Use as `async with Kube.auto() as kube`, or `close()` it; bound to one event loop."""

    def __init__(
        self,
        connection: Connection,
        *,
        request_timeout: float = 30.0,
        patience: float = 10.0,
        connections: int = 64,
        user_agent: str = "hypermesh",
    ) -> None:
        self.connection = connection
        self._timeout = aiohttp.ClientTimeout(total=request_timeout, sock_connect=5)
        self._patience = patience
        self._connections = connections
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

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

    async def __aenter__(self) -> Kube:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the pooled connections; the client can be used again and opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

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

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> AsyncIterator[Object]:
        """The list objects of a paginated LIST, in order; each has `items` and `metadata.resourceVersion`.

        Raises Expired when the server forgot the snapshot between two pages: begin again.
        """
        query = {"limit": str(page_size)} if page_size else {}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        while True:
            page = await self.request(
                "GET",
                resource.path(namespace),
                about=resource.describe(namespace),
                query=query,
                idempotent=True,
            )
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

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
    ) -> Object:
        """POST of `body` (namespace from its metadata unless given); `name` + `subresource` for e.g. TokenRequest."""
        metadata = body.get("metadata") or {}
        namespace = namespace or metadata.get("namespace")
        shown = name or metadata.get("name") or metadata.get("generateName", "")
        full = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self.request(
            "POST",
            resource.path(namespace, name, subresource),
            about=resource.describe(namespace, shown),
            body=full,
            query={"fieldManager": field_manager} if field_manager else None,
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
            content_type=_APPLY,
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
            content_type=_MERGE,
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
        status = answer.get("status") or {}
        user = status.get("user") or {}
        return TokenReview(
            authenticated=status.get("authenticated") is True,
            username=str(user.get("username", "")),
            uid=str(user.get("uid", "")),
            groups=tuple(user.get("groups") or ()),
            extra={key: tuple(values) for key, values in (user.get("extra") or {}).items()},
            audiences=tuple(status.get("audiences") or ()),
            error=str(status.get("error", "")),
        )

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
        metadata = regarding["metadata"]
        namespace = metadata.get("namespace") or "default"
        reference = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": metadata["name"],
            **{
                key: metadata[field]
                for key, field in (
                    ("namespace", "namespace"),
                    ("uid", "uid"),
                    ("resourceVersion", "resourceVersion"),
                )
                if metadata.get(field)
            },
        }
        await self.create(
            EVENTS,
            {
                "metadata": {"generateName": f"{metadata['name'][:200]}.", "namespace": namespace},
                "eventTime": micro_time(),
                "type": "Warning" if warning else "Normal",
                "reason": reason,
                "action": action,
                "note": note[:1000],
                "regarding": reference,
                "reportingController": controller,
                "reportingInstance": instance[:128],
            },
        )

    # -- the wire --------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        about: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        idempotent: bool = False,
    ) -> Object:
        """One request, decoded; repeated within `patience` when `idempotent` or when the server said 429."""
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                return await self._once(method, path, about, body, query, content_type)
            except Unavailable as error:
                wait = max(pause, error.retry_after or 0.0) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
                repeatable = idempotent or error.status == 429
                if not repeatable or time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)
            pause = min(pause * 2, 2.0)

    async def _once(
        self,
        method: str,
        path: str,
        about: str,
        body: Object | None,
        query: Mapping[str, str] | None,
        content_type: str,
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for renew in (False, True):
            try:
                async with self._open().request(
                    method,
                    self.connection.server + path,
                    params=query,
                    data=data,
                    headers=await self.headers(content_type if data is not None else None, renew=renew),
                    ssl=self.connection.tls or True,
                    timeout=self._timeout,
                ) as response:
                    if response.status == 401 and not renew:
                        continue  # the token may just have been rotated
                    raw = await response.read()
                    return _decode(about, response, raw)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise unreachable(about, self.connection.server, error) from error
        raise AssertionError("unreachable")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=60, keepalive_timeout=60),
                headers={"User-Agent": self._user_agent},
                auto_decompress=True,
            )
        return self._session

    async def headers(self, content_type: str | None = None, *, renew: bool = False) -> dict[str, str]:
        """Request headers with the current credential."""
        headers = {"Accept": _JSON}
        if content_type:
            headers["Content-Type"] = content_type
        if token := await self.connection.credential.token(renew=renew):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def stream(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], inactivity: float) -> Any:
        """The open response of a watch, as an async context manager; `inactivity` bounds every wait for bytes."""
        return self._open().get(
            self.connection.server + path,
            params=query,
            headers=headers,
            ssl=self.connection.tls or True,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=inactivity),
        )


def unreachable(about: str, server: str, error: BaseException) -> Unavailable:
    """The error for a request that got no answer at all."""
    text = str(error) or type(error).__name__
    return Unavailable(about, f"no answer from the API server {server}: {text}")


def _decode(about: str, response: aiohttp.ClientResponse, raw: bytes) -> Object:
    try:
        body: Any = json.loads(raw) if raw else {}
    except ValueError:
        body = raw[:500].decode(errors="replace")
        if response.status < 400 and "json" in response.content_type:
            raise Unavailable(about, "the answer was cut short", response.status) from None
    if response.status < 400:
        return body if isinstance(body, dict) else {"text": body}
    after = response.headers.get("Retry-After", "")
    raise error_from_status(about, response.status, body, float(after) if after.isdigit() else None)
