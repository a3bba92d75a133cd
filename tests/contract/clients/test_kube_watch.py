"""Watches against a real API server, through what kills watches: cut and silent connections, 410, kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from hypermesh_clients.kube import Kube, NotFound, Watch, WatchEvent, WatchType
from hypermesh_clients.kube_config import from_kubeconfig
from hypermesh_clients.kube_resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, Resource

LIMIT = 60.0


class Recorder:
    """Consumes a watch in a task and lets a test wait for what it reports."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.events: list[WatchEvent] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self.watch:
            self.events.append(event)
            self._more.set()

    def names(self, kind: WatchType) -> list[str]:
        return [event.object["metadata"]["name"] for event in self.events if event.type is kind]

    def synced(self) -> int:
        return sum(event.type is WatchType.SYNCED for event in self.events)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                assert not self._task.done(), self._task.exception()
                self._more.clear()
                await self._more.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Forwarder:
    """A TCP forwarder to the API server whose connections can be cut, or made silent as a dead link is."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.silent: set[asyncio.StreamWriter] = set()
        self.accepting = True
        self.opened = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "::1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepting:
            writer.close()
            return
        self.opened += 1
        upstream_reader, upstream = await asyncio.open_connection("::1", self._target)
        self._writers |= {writer, upstream}
        await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if writer in self.silent:
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()
        self._writers.discard(writer)

    def cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    def open(self) -> int:
        return len(self._writers) // 2

    def silence(self) -> None:
        self.silent |= self._writers

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()


Start = Callable[..., Awaitable[Recorder]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    recorders: list[Recorder] = []

    async def begin(kube: Kube, *arguments: Any, **options: Any) -> Recorder:
        recorders.append(Recorder(kube.watch(*arguments, **options)))
        return recorders[-1]

    yield begin
    for recorder in recorders:
        await recorder.stop()


@pytest.fixture
async def forwarder(api_server: Any) -> AsyncIterator[tuple[Forwarder, Kube]]:
    """A forwarder and a client that goes through it."""
    link = Forwarder(api_server.port)
    port = await link.start()
    connection = replace(from_kubeconfig(api_server.kubeconfig), server=f"https://[::1]:{port}")
    async with Kube(connection) as client:
        yield link, client
    await link.stop()


async def put(kube: Kube, namespace: str, name: str, *, labels: dict[str, str] | None = None, **data: str) -> None:
    body = {"metadata": {"namespace": namespace, "name": name, "labels": labels or {}}, "data": data}
    await kube.apply(CONFIG_MAPS, body, field_manager="contract")


async def test_lists_first_then_follows(kube: Kube, namespace: str, start: Start) -> None:
    await put(kube, namespace, "early")
    watch = await start(kube, CONFIG_MAPS, namespace)
    await watch.until(lambda: watch.synced() == 1)
    assert [event.type for event in watch.events] == [WatchType.ADDED, WatchType.SYNCED]
    assert watch.events[0].object["kind"] == "ConfigMap"
    await put(kube, namespace, "late")
    await put(kube, namespace, "early", x="1")
    await kube.delete(CONFIG_MAPS, "late", namespace)
    await watch.until(lambda: len(watch.events) == 5)
    told = [(event.type.value, event.object["metadata"]["name"]) for event in watch.events[2:]]
    assert told == [("ADDED", "late"), ("MODIFIED", "early"), ("DELETED", "late")]
    assert watch.watch.check() is None
    assert watch.watch.last_event_age() < LIMIT


async def test_an_empty_list_is_synced_too(kube: Kube, namespace: str, start: Start) -> None:
    watch = await start(kube, CONFIG_MAPS, namespace)
    await watch.until(lambda: watch.synced() == 1)
    assert len(watch.events) == 1


async def test_selectors(kube: Kube, namespace: str, start: Start) -> None:
    by_label = await start(kube, CONFIG_MAPS, namespace, label_selector="hypermesh.online/node=n1")
    by_field = await start(kube, CONFIG_MAPS, namespace, field_selector="metadata.name=b")
    await by_label.until(lambda: by_label.synced() == 1)
    await by_field.until(lambda: by_field.synced() == 1)
    await put(kube, namespace, "a", labels={"hypermesh.online/node": "n2"})
    await put(kube, namespace, "b", labels={"hypermesh.online/node": "n2"})
    await put(kube, namespace, "c", labels={"hypermesh.online/node": "n1"})
    await by_label.until(lambda: bool(by_label.names(WatchType.ADDED)))
    await by_field.until(lambda: bool(by_field.names(WatchType.ADDED)))
    assert by_label.names(WatchType.ADDED) == ["c"]
    assert by_field.names(WatchType.ADDED) == ["b"]


async def test_objects_larger_than_any_buffer(kube: Kube, namespace: str, start: Start) -> None:
    watch = await start(kube, CONFIG_MAPS, namespace)
    await watch.until(lambda: watch.synced() == 1)
    await kube.create(
        CONFIG_MAPS, {"metadata": {"name": "large", "namespace": namespace}, "data": {"x": "y" * 1_000_000}}
    )
    await watch.until(lambda: watch.names(WatchType.ADDED) == ["large"])
    assert len(watch.events[-1].object["data"]["x"]) == 1_000_000


async def test_a_cut_connection_loses_and_doubles_nothing(
    kube: Kube, namespace: str, forwarder: tuple[Forwarder, Kube], start: Start
) -> None:
    link, through = forwarder
    await put(kube, namespace, "early")
    watch = await start(through, CONFIG_MAPS, namespace)
    await watch.until(lambda: watch.synced() == 1)
    link.accepting = False
    link.cut()
    for number in range(5):
        await put(kube, namespace, f"cut-{number}")
    await kube.delete(CONFIG_MAPS, "early", namespace)
    link.accepting = True
    await watch.until(lambda: watch.names(WatchType.DELETED) == ["early"])
    assert watch.names(WatchType.ADDED) == ["early", *(f"cut-{number}" for number in range(5))]
    assert watch.synced() == 1, "it should have resumed, not listed again"


async def test_a_silent_connection_is_given_up(
    kube: Kube, namespace: str, forwarder: tuple[Forwarder, Kube], start: Start
) -> None:
    link, through = forwarder
    watch = await start(through, CONFIG_MAPS, namespace, inactivity=1.0)
    await watch.until(lambda: watch.synced() == 1)
    link.silence()
    await put(kube, namespace, "unheard")
    await watch.until(lambda: watch.names(WatchType.ADDED) == ["unheard"])


async def test_after_410_only_the_differences_are_told(own_api_server: Any, start: Start) -> None:
    async with Kube.from_kubeconfig(own_api_server.kubeconfig) as direct:
        link = Forwarder(own_api_server.port)
        port = await link.start()
        connection = replace(from_kubeconfig(own_api_server.kubeconfig), server=f"https://[::1]:{port}")
        async with Kube(connection, patience=1.0) as through:
            for name in ("same", "changed", "deleted", "replaced"):
                await put(direct, "default", name)
            old = (await direct.get(CONFIG_MAPS, "replaced", "default"))["metadata"]["uid"]
            watch = await start(through, CONFIG_MAPS, "default")
            await watch.until(lambda: watch.synced() == 1)
            before = len(watch.events)
            link.accepting = False
            link.cut()
            await put(direct, "default", "changed", x="1")
            await direct.delete(CONFIG_MAPS, "deleted", "default")
            await direct.delete(CONFIG_MAPS, "replaced", "default")
            await put(direct, "default", "replaced")
            await put(direct, "default", "new")
            await direct.close()
            own_api_server.kill()
            own_api_server.compact()
            await asyncio.to_thread(own_api_server.start)
            link.accepting = True
            await watch.until(lambda: watch.synced() == 2)
            told = [(event.type.value, event.object["metadata"].get("name")) for event in watch.events[before:-1]]
            assert sorted(told) == sorted(
                [
                    ("MODIFIED", "changed"),
                    ("DELETED", "deleted"),
                    ("DELETED", "replaced"),
                    ("ADDED", "replaced"),
                    ("ADDED", "new"),
                ]
            )
            assert told.index(("DELETED", "replaced")) < told.index(("ADDED", "replaced"))
            gone = next(event for event in watch.events[before:] if event.object["metadata"]["name"] == "replaced")
            assert gone.object["metadata"] == {"name": "replaced", "namespace": "default", "uid": old}
            await watch.stop()
        await link.stop()


async def test_kill_and_restart_of_the_api_server(own_api_server: Any, start: Start) -> None:
    async with Kube.from_kubeconfig(own_api_server.kubeconfig, patience=LIMIT) as kube:
        watch = await start(kube, CONFIG_MAPS, "default")
        await watch.until(lambda: watch.synced() == 1)
        expected = []
        for round_ in range(3):
            await put(kube, "default", f"before-{round_}")
            own_api_server.kill()
            writing = asyncio.create_task(put(kube, "default", f"during-{round_}"))
            async with asyncio.timeout(LIMIT):  # until the stream is known as broken
                while not watch.watch.problem:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(own_api_server.start)
            await writing
            expected += [f"before-{round_}", f"during-{round_}"]
            await watch.until(lambda wanted=tuple(expected): set(wanted) <= set(watch.names(WatchType.ADDED)))
            assert watch.watch.check() is None
        assert watch.names(WatchType.ADDED) == expected
        await watch.stop()


async def test_a_kind_that_comes_later(kube: Kube, start: Start) -> None:
    """The chart's CRDs may be slower than the process: not ready, with the reason, then all by itself."""
    group = f"late-{uuid.uuid4().hex[:6]}.example"
    late = Resource(group, "v1", "things", "Thing")
    watch = await start(kube, late)
    async with asyncio.timeout(LIMIT):
        while not watch.watch.problem:  # noqa: ASYNC110 - the watch has no event for its troubles
            await asyncio.sleep(0.05)
    assert "not listed yet" in (watch.watch.check() or "")
    with pytest.raises(NotFound):
        await kube.list(late)
    await kube.create(
        CUSTOM_RESOURCE_DEFINITIONS,
        {
            "metadata": {"name": f"things.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ],
            },
        },
    )
    await watch.until(lambda: watch.synced() == 1)
    await kube.create(late, {"metadata": {"name": "a", "namespace": "default"}})
    await watch.until(lambda: watch.names(WatchType.ADDED) == ["a"])
    assert watch.watch.check() is None
    await kube.delete(CUSTOM_RESOURCE_DEFINITIONS, f"things.{group}")


async def test_leaving_the_loop_closes_the_stream(
    kube: Kube, namespace: str, forwarder: tuple[Forwarder, Kube]
) -> None:
    link, through = forwarder
    for round_ in range(5):
        async for event in through.watch(CONFIG_MAPS, namespace):
            if event.type is WatchType.SYNCED:
                writing = asyncio.create_task(put(kube, namespace, f"live-{round_}"))
            elif event.object["metadata"]["name"] == f"live-{round_}":
                await writing
                break  # in the middle of an open stream
    async with asyncio.timeout(LIMIT):
        while link.open() > 1:  # noqa: ASYNC110 - one may stay pooled; closing has no event here
            await asyncio.sleep(0.05)
