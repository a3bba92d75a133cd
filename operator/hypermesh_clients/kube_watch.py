"""A watch that never dies silently: lists, follows, and lists again when the server lost the thread.

Data flow: LIST pages → ADDED events → SYNCED → WATCH stream → ADDED/MODIFIED/DELETED, for ever. The watch
remembers only key, uid and resource version of what it reported. After a gap (410 Gone, API server
restored or replaced) it lists again, reports just the differences — deletions missed included — and SYNCED
once more, so a consumer needs no second code path. A quiet stream is ended after `inactivity` seconds
(the server sends a bookmark about every minute), because a half-open TCP connection is quiet for ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import aiohttp

from hypermesh_clients.kube_errors import Expired, KubeError, Unavailable, error_from_status
from hypermesh_clients.kube_resources import Object, Resource
from hypermesh_clients.kube_transport import Transport

log = logging.getLogger(__name__)

SERVER_TIMEOUT = 300  # seconds after which the server ends the stream and we resume
MAX_PAUSE = 5.0


class WatchType(StrEnum):
    """What happened; SYNCED has no object and says that everything existing has been reported."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    SYNCED = "SYNCED"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. A DELETED found by listing again carries only apiVersion, kind and metadata name, namespace, uid."""

    type: WatchType
    object: Object


_SYNCED = WatchEvent(WatchType.SYNCED, {})
_Key = tuple[str, str]  # namespace, name
_Seen = tuple[str, str]  # uid, resource version


class Watch:
    """`async for event in kube.watch(...)`. One consumer at a time; leaving the loop closes the stream."""

    def __init__(
        self,
        transport: Transport,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str | None,
        field_selector: str | None,
        inactivity: float,
    ) -> None:
        self._transport = transport
        self._resource = resource
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._inactivity = inactivity
        self._known: dict[_Key, _Seen] = {}
        self._version = ""  # resource version to resume from; empty: list
        self._heard: float | None = None
        self._started = time.monotonic()
        self.problem: str | None = None
        """Why there is no stream right now, or None."""
        self.synced = asyncio.Event()

    def last_event_age(self) -> float:
        """Seconds since the server last said anything (event, bookmark, answered list); since creation if never."""
        return time.monotonic() - (self._started if self._heard is None else self._heard)

    def check(self, max_age: float = 120.0) -> str | None:
        """A readiness check: None, or why what this watch shows may be out of date."""
        about = self._resource.describe(self._namespace)
        age = self.last_event_age()
        if not self.synced.is_set():
            return f"watch of {about}: not listed yet ({self.problem or 'in progress'})"
        if age > max_age:
            return f"watch of {about}: nothing heard for {age:.0f} s ({self.problem or 'stream is open'})"
        return None

    async def __aiter__(self) -> AsyncIterator[WatchEvent]:
        pause = 0.05
        while True:
            heard = self._heard
            try:
                if not self._version:
                    async for event in self._list():
                        yield event
                async for event in self._follow():
                    yield event
                    pause = 0.05
                self.problem = None
            except Expired as error:
                log.info("watch of %s lists again: %s", self._resource.plural, error.message)
                self._version = ""
            except KubeError as error:
                self.problem = error.message
                log.warning("watch of %s interrupted: %s", self._resource.plural, error)
            if self._heard != heard:
                pause = 0.05
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause = min(pause * 2, MAX_PAUSE)

    async def _list(self) -> AsyncGenerator[WatchEvent, None]:
        """Reports the differences between what is there and what was reported, then SYNCED."""
        present: set[_Key] = set()
        version = ""
        async for page in self._transport.pages(
            self._resource, self._namespace, label_selector=self._labels, field_selector=self._fields
        ):
            self._hear()
            version = page["metadata"]["resourceVersion"]
            for item in page["items"] or ():
                item.setdefault("apiVersion", self._resource.api_version)
                item.setdefault("kind", self._resource.kind)
                key = _key(item)
                present.add(key)
                known = self._known.get(key)
                seen = _seen(item)
                if known == seen:
                    continue
                if known is not None and known[0] != seen[0]:
                    yield self._gone(key)
                    known = None
                self._known[key] = seen
                yield WatchEvent(WatchType.MODIFIED if known else WatchType.ADDED, item)
        for key in [key for key in self._known if key not in present]:
            yield self._gone(key)
        self._version = version
        self.synced.set()
        yield _SYNCED

    async def _follow(self) -> AsyncGenerator[WatchEvent, None]:
        """One stream, until the server or the inactivity time-out ends it. Raises KubeError."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(SERVER_TIMEOUT),
        }
        if self._labels:
            query["labelSelector"] = self._labels
        if self._fields:
            query["fieldSelector"] = self._fields
        async for line in self._lines(query):
            self._hear()
            raw = json.loads(line)
            kind, item = raw["type"], raw["object"]
            if kind == "ERROR":
                about = self._resource.describe(self._namespace)
                raise error_from_status(about, int(item.get("code", 500)), item)
            self._version = item["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                continue
            if kind == "DELETED":
                self._known.pop(_key(item), None)
            else:
                self._known[_key(item)] = _seen(item)
            yield WatchEvent(WatchType(kind), item)

    async def _lines(self, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        about, server = self._resource.describe(self._namespace), self._transport.connection.server
        path = self._resource.path(self._namespace)
        # A watch is refused, not retried, by a server that just rotated our token: the next round reads it again.
        headers = await self._transport.headers(renew=self.problem is not None)
        try:
            async with self._transport.stream(path, query, headers, self._inactivity) as response:
                if response.status != 200:
                    raise error_from_status(about, response.status, await _body(response))
                self._hear()
                self.problem = None
                rest = b""
                async for chunk in response.content.iter_any():  # readline() has a limit below object size
                    *lines, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
                    for line in lines:
                        if line:
                            yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            raise Unavailable(about, f"the stream from {server} broke: {text}") from error

    def _gone(self, key: _Key) -> WatchEvent:
        namespace, name = key
        uid, _ = self._known.pop(key)
        metadata = {"name": name, "uid": uid, **({"namespace": namespace} if namespace else {})}
        return WatchEvent(
            WatchType.DELETED,
            {"apiVersion": self._resource.api_version, "kind": self._resource.kind, "metadata": metadata},
        )

    def _hear(self) -> None:
        self._heard = time.monotonic()


def _key(item: Object) -> _Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _seen(item: Object) -> _Seen:
    metadata = item["metadata"]
    return metadata["uid"], metadata["resourceVersion"]


async def _body(response: aiohttp.ClientResponse) -> Any:
    text = await response.text()
    try:
        return json.loads(text)
    except ValueError:
        return text[:500]
