"""Hot-plug with real loop devices: the kernel's own events reach the agent, with or without udevd."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import loop_devices as loops
import pytest

from hypermesh_agent.hardware import Inventory, Kind
from hypermesh_agent.hotplug import HotPlug
from hypermesh_agent.survey import Survey, SurveyConfig

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching loop devices needs root"),
]
LIMIT_S = 2.0
"""What the agent promises: a new device is an Asset within two seconds."""


def identities(inventory: Inventory) -> set[str]:
    return {item.hardware_id for item in inventory.of(Kind.STORAGE)}


async def seen(events: AsyncIterator[frozenset[Kind]], survey: Survey, expected: str, *, there: bool) -> float:
    """Seconds until the inventory has (or lacks) the identity; fails after LIMIT_S."""
    began = time.monotonic()
    async with asyncio.timeout(LIMIT_S):
        while True:
            inventory = await survey.run(await anext(events))
            if (expected in identities(inventory)) == there:
                return time.monotonic() - began


async def test_attach_and_detach(tmp_path: Path) -> None:
    path = loops.image(tmp_path, "disk.img", 64)
    survey = Survey(SurveyConfig())
    await survey.run({Kind.STORAGE})
    async with HotPlug() as plug:
        events = aiter(plug)
        with loops.attached(path) as device:
            await seen(events, survey, f"loop:{path}", there=True)
            (item,) = [it for it in (await survey.run(())).of(Kind.STORAGE) if it.hardware_id == f"loop:{path}"]
            assert item.size == 64 << 20
            assert item.detail["devicePath"] == device
            loops.detach(device)
            await seen(events, survey, f"loop:{path}", there=False)


async def test_a_burst_ends_in_the_truth(tmp_path: Path) -> None:
    survey = Survey(SurveyConfig())
    before = identities(await survey.run({Kind.STORAGE}))
    paths = [loops.image(tmp_path, f"burst{index}.img", 8) for index in range(6)]
    async with HotPlug() as plug:
        events = aiter(plug)
        devices = [loops.attach(path) for path in paths]
        try:
            await seen(events, survey, f"loop:{paths[-1]}", there=True)
            await survey.run({Kind.STORAGE})
            found = identities(await survey.run(()))
            assert {f"loop:{path}" for path in paths} <= found
        finally:
            for device in devices:
                loops.detach(device)
        await seen(events, survey, f"loop:{paths[-1]}", there=False)
        after = identities(await survey.run({Kind.STORAGE}))
        assert not {f"loop:{path}" for path in paths} & after
        assert {item for item in before if not item.startswith("loop:")} <= after


async def test_read_only_loops_are_no_assets(tmp_path: Path) -> None:
    path = loops.image(tmp_path, "package.img", 8)
    survey = Survey(SurveyConfig())
    with loops.attached(path, "--read-only"):
        assert f"loop:{path}" not in identities(await survey.run({Kind.STORAGE}))
