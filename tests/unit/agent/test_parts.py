"""The agent's parts side by side: newer papers end them in order, a part that ends by itself ends the agent by name."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh import falcon
from hypermesh.v1 import trust_pb2
from hypermesh_agent.agent import PartEnded, until_renewed
from hypermesh_agent.identity import Papers, TlsIdentity

NEWER = Papers(falcon.generate(), trust_pb2.Certificate(), TlsIdentity(b"key", b"chain", b"root"), 0.0)


class Parts:
    """Coroutines that remember how they ended."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []

    async def lasting(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append(name)

    async def papers(self) -> Papers:
        await self.lasting("renewal")
        return NEWER


async def returning() -> None:
    await asyncio.sleep(0)


async def failing() -> None:
    raise LookupError("a mistake of ours")


async def newer() -> Papers:
    await asyncio.sleep(0)
    return NEWER


def test_newer_papers_end_all_parts() -> None:
    parts = Parts()
    assert asyncio.run(until_renewed(newer(), {"one": parts.lasting("one"), "two": parts.lasting("two")})) is NEWER
    assert sorted(parts.cancelled) == ["one", "two"]


def test_a_part_that_returns_is_named() -> None:
    parts = Parts()
    with pytest.raises(PartEnded, match="by itself: heartbeat, watch;"):
        asyncio.run(
            until_renewed(
                parts.papers(), {"heartbeat": returning(), "mirror": parts.lasting("mirror"), "watch": returning()}
            )
        )
    assert sorted(parts.cancelled) == ["mirror", "renewal"]


def test_the_failure_of_a_part_is_the_agents() -> None:
    parts = Parts()
    with pytest.raises(LookupError, match="a mistake of ours"):
        asyncio.run(until_renewed(parts.papers(), {"heartbeat": failing(), "mirror": parts.lasting("mirror")}))
    assert sorted(parts.cancelled) == ["mirror", "renewal"]
