"""kopf on our own HTTP session: credentials that rotate, and an ear on its watch streams.

kopf does not tell when a stream last spoke; readiness must know, because a watch that died silently looks like a quiet
cluster. The session's responses note every byte of a watch that passes through them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import kopf

from hypermesh_clients.kube_config import Connection


class StreamEar:
    """When the watch of a resource (its plural) last said anything, bookmarks included."""

    def __init__(self, plural: str) -> None:
        self._path_end = f"/{plural}"
        self._heard: float | None = None

    def age(self) -> float:
        """Seconds; infinite before the first byte."""
        return float("inf") if self._heard is None else time.monotonic() - self._heard

    def listens_to(self, response: aiohttp.ClientResponse) -> bool:
        """Whether this response is the watch in question."""
        url = response.url
        return url.path.endswith(self._path_end) and url.query.get("watch") == "true"

    def hear(self) -> None:
        """It spoke."""
        self._heard = time.monotonic()


class _HeardStream:
    """A response body that reports each chunk; everything else is the body's own."""

    def __init__(self, body: Any, ear: StreamEar) -> None:
        self._body = body
        self._ear = ear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for chunk in self._body.iter_chunked(size):
            self._ear.hear()
            yield chunk

    async def iter_any(self) -> AsyncIterator[bytes]:
        async for chunk in self._body.iter_any():
            self._ear.hear()
            yield chunk


def session(connection: Connection, ear: StreamEar) -> kopf.AiohttpSession:
    """What kopf's login handler returns. The token is asked for at each request, so that rotation goes unnoticed."""

    async def authorize(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        for renew in (False, True):
            if token := await connection.credential.token(renew=renew):
                request.headers["Authorization"] = f"Bearer {token}"
            response = await handler(request)
            if response.status != 401 or renew:
                break
            response.release()
        return response

    class HeardResponse(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if self.status == 200 and ear.listens_to(self):
                ear.hear()
                self.content = _HeardStream(self.content, ear)  # type: ignore[assignment]
            return self

    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.tls or True),
        middlewares=(authorize,),
        response_class=HeardResponse,
    )
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=client, default_namespace="default")
