"""What goes wrong while the proxy runs is shown and tried again; it does not end the agent."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from proxy_world import FedMirror, World
from test_pipeline import settled

from hypermesh_agent.proxy import service
from hypermesh_agent.proxy.programming import ProgrammingFailed
from hypermesh_agent.proxy.service import ProxyService


class Failing(ProxyService):
    """Its life ends as a task group's does: with the errors of several tasks in groups."""

    lives = 0

    async def _live(self, stack: AsyncExitStack) -> None:
        self.lives += 1
        if self.lives == 1:
            raise ExceptionGroup("tasks", [ExceptionGroup("pipeline", [ProgrammingFailed("table"), OSError("route")])])
        self._fails(None)
        await asyncio.Event().wait()


async def test_errors_of_tasks_are_shown_and_the_proxy_starts_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_START_RETRY_S", 0.05)
    said: list[str | None] = []
    unused = cast(Any, None)
    proxy = Failing(unused, FedMirror(world), unused, unused, unused, unused, lambda: said.append(proxy.failure()))
    task = asyncio.create_task(proxy.run())
    await settled(lambda: proxy.lives == 2 or task.done())
    assert not task.done()
    assert said == ["table; route", None]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_other_errors_end_it(world: World) -> None:
    class Broken(ProxyService):
        async def _live(self, stack: AsyncExitStack) -> None:
            raise ExceptionGroup("tasks", [LookupError("a mistake of ours")])

    unused = cast(Any, None)
    with pytest.raises(ExceptionGroup):
        await Broken(unused, FedMirror(world), unused, unused, unused, unused).run()
