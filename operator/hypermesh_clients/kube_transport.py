"""Requests to one API server over a keep-alive pool: credentials, retries, time limits, decoding.

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
from types import TracebackType
from typing import Any, Self

import aiohttp

from hypermesh_clients.kube_config import Connection
from hypermesh_clients.kube_errors import Unavailable, error_from_status
from hypermesh_clients.kube_resources import Object, Resource

JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML
PAGE_SIZE = 500


class Transport:
    """One API server, bound to one event loop. Use as `async with`, or `close()` it."""

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

    async def __aenter__(self) -> Self:
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

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = PAGE_SIZE,
        metadata_only: bool = False,
    ) -> AsyncIterator[Object]:
        """The list objects of a paginated LIST, in order; each has `items` and `metadata.resourceVersion`.

        With `metadata_only` the items have neither spec nor status.
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
                accept=METADATA_ONLY if metadata_only else JSON,
                idempotent=True,
            )
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def request(
        self,
        method: str,
        path: str,
        *,
        about: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        idempotent: bool = False,
    ) -> Object:
        """One request, decoded; repeated within `patience` when `idempotent` or when the server said 429."""
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                return await self._once(method, path, about, body, query, content_type, accept)
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
        accept: str,
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for renew in (False, True):
            try:
                async with self._open().request(
                    method,
                    self.connection.server + path,
                    params=query,
                    data=data,
                    headers=await self.headers(content_type if data is not None else None, accept, renew=renew),
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

    async def headers(
        self, content_type: str | None = None, accept: str = JSON, *, renew: bool = False
    ) -> dict[str, str]:
        """Request headers with the current credential."""
        headers = {"Accept": accept}
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
