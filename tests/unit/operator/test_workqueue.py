"""Keys come once, come again when added meanwhile, and come on time."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh_operator.workqueue import WorkQueue


async def drain(queue: WorkQueue) -> list[str]:
    """All keys that are ready now."""
    taken = []
    while len(queue):
        async with queue.next() as key:
            taken.append(key)
    return taken


async def test_a_key_added_twice_comes_once() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert await drain(queue) == ["a", "b"]


async def test_a_key_added_while_worked_on_comes_again_and_never_twice_at_once() -> None:
    queue = WorkQueue()
    queue.add("a")
    async with queue.next():
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
    assert await drain(queue) == ["a"]


async def test_what_is_urgent_comes_first_also_when_added_while_worked_on() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("z", urgent=True)
    async with queue.next() as first:
        assert first == "z"
        queue.add("z", urgent=True)
    assert await drain(queue) == ["z", "a", "b", "c"]


async def test_the_earlier_time_wins() -> None:
    queue = WorkQueue()
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)
    queue.add_after("a", 30)
    async with asyncio.timeout(5), queue.next() as key:
        assert key == "a"
    assert await drain(queue) == []


async def test_now_replaces_later() -> None:
    queue = WorkQueue()
    queue.add_after("a", 0.01)
    queue.add("a")
    assert await drain(queue) == ["a"]
    await asyncio.sleep(0.03)
    assert len(queue) == 0


async def test_what_is_forgotten_does_not_come() -> None:
    queue = WorkQueue()
    queue.add_after("a", 0.01)
    queue.forget("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await queue.take()


async def test_workers_share_the_keys() -> None:
    queue, seen = WorkQueue(), list[str]()

    async def worker() -> None:
        while True:
            async with queue.next() as key:
                await asyncio.sleep(0)
                seen.append(key)
                if len(seen) == 100:
                    finished.set()

    finished = asyncio.Event()
    workers = [asyncio.create_task(worker()) for _ in range(8)]
    for number in range(100):
        queue.add(str(number))
    async with asyncio.timeout(5):
        await finished.wait()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert sorted(seen, key=int) == [str(number) for number in range(100)]
