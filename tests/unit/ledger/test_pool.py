"""The mempool: order, limits, ends of validity, and that everybody who waits is told."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool import Class, Pool, Share, waiting
from hypermesh_ledger.pool.lanes import TX_OVERHEAD
from hypermesh_ledger.pool.priority import _FIRST, LIFT_BLOCKS, class_of

from .pooled import decoded

PLENTY = 1 << 20
TWO = Share(2, PLENTY)


def put(pool: Pool, kind: str, name: bytes, signer: bytes = b"", share: Share = TWO, until_ms: int = 1 << 50) -> None:
    pool.add(decoded(kind, name, signer, until_ms), share)


def test_every_kind_has_its_class() -> None:
    kinds = {field.name for field in ledger_pb2.Operation.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert kinds > _FIRST
    assert class_of("release") is Class.FIRST
    assert class_of("allocate") is Class.ORDINARY


def test_what_gives_back_and_proves_goes_first() -> None:
    pool = Pool()
    for kind, name in (("allocate", b"1"), ("prove", b"2"), ("release", b"3"), ("update_asset", b"4"), ("prove", b"5")):
        put(pool, kind, name, name)
    assert pool.take(1000, 0) == [b"2", b"3", b"5", b"1", b"4"]
    assert len(pool) == 5  # a block that is not agreed on takes nothing
    pool.decide([Result(b"2", 1), Result(b"1", 1)], 0)
    assert pool.take(1000, 0) == [b"3", b"5", b"4"]


def test_a_block_is_never_too_big() -> None:
    pool = Pool()
    for name in (b"a" * 10, b"b" * 10, b"c" * 10):
        put(pool, "allocate", name, name)
    assert len(pool.take(2 * (10 + TX_OVERHEAD), 0)) == 2
    assert pool.take(5, 0) == []


def test_what_does_not_fit_holds_up_its_own_lane_only() -> None:
    pool = Pool()
    for name, signer in ((b"big" * 10, b"A"), (b"a", b"A"), (b"b", b"B")):
        put(pool, "allocate", name, signer)
    assert pool.take(2 * (1 + TX_OVERHEAD), 0) == [b"b"]
    assert pool.take(1000, 0) == [b"big" * 10, b"b", b"a"]


async def test_waiting_for_the_first() -> None:
    pool = Pool()
    waiting = asyncio.create_task(pool.filled(30))
    await asyncio.sleep(0)
    put(pool, "allocate", b"1")
    async with asyncio.timeout(10):
        assert await waiting
    pool.decide([Result(b"1", 1)], 0)
    assert not await pool.filled(0.01)


def test_senders_take_turns() -> None:
    pool = Pool()
    for index in range(5):
        put(pool, "allocate", b"flood%d" % index, b"greedy", Share(9, PLENTY))
    pool.decide([Result(b"flood0", 1)], 0)
    put(pool, "allocate", b"modest", b"modest")
    assert pool.take(2 * (6 + TX_OVERHEAD), 0) == [b"flood1", b"modest"]


def test_a_place_that_was_not_used_is_given_back() -> None:
    pool = Pool(whole=Share(3, PLENTY))
    for index in range(3):
        put(pool, "allocate", b"%d" % index, b"A", Share(3, PLENTY))
    put(pool, "release", b"r", b"B")  # 2 gives way
    put(pool, "release", b"s", b"B")  # 1 too
    pool.decide([Result(b"r", 1), Result(b"s", 1)], 0)
    put(pool, "allocate", b"b", b"B")
    put(pool, "allocate", b"3", b"A")
    assert pool.take(1000, 0) == [b"0", b"b", b"3"]


def test_full() -> None:
    pool = Pool(whole=TWO)
    for name in (b"1", b"2", b"2"):
        put(pool, "allocate", name, name)
    with pytest.raises(Refused) as caught:
        put(pool, "allocate", b"3", b"3")
    assert caught.value.reason is Reason.MempoolFull
    assert pool.take(1000, 0) == [b"1", b"2"]


def test_when_full_the_newest_of_the_largest_lowest_lane_gives_way_and_is_told() -> None:
    lost: list[tuple[Reason, Class]] = []
    pool = Pool(whole=Share(4, PLENTY))
    pool.lost = lambda *what: lost.append(what)
    for name, signer in ((b"1", b"A"), (b"2", b"B"), (b"3", b"B"), (b"p", b"C")):
        put(pool, "prove" if name == b"p" else "allocate", name, signer)
    told: list[Result] = []
    pool.wait_for(b"3", told.append)
    put(pool, "release", b"r", b"C")
    (result,) = told
    assert (result.reason, result.height) == (Reason.MempoolFull, 0)
    assert "may still be committed; submit the same bytes again" in result.message
    assert lost == [(Reason.MempoolFull, Class.ORDINARY)]
    assert pool.take(1000, 0) == [b"p", b"r", b"1", b"2"]
    put(pool, "release", b"s", b"A")
    put(pool, "release", b"t", b"D")
    with pytest.raises(Refused):
        put(pool, "release", b"u", b"D")  # nothing lower is left, and no lane of the first class is larger


def test_a_flood_gives_way_to_a_newcomer_of_the_same_class() -> None:
    pool = Pool(whole=Share(3, PLENTY))
    for index in range(3):
        put(pool, "allocate", b"%d" % index, b"greedy", Share(9, PLENTY))
    put(pool, "allocate", b"m", b"modest")
    with pytest.raises(Refused):
        put(pool, "allocate", b"n", b"modest")  # then they would be equal, and displace each other for ever
    with pytest.raises(Refused):
        put(pool, "allocate", b"3", b"greedy", Share(9, PLENTY))
    assert pool.take(1000, 0) == [b"0", b"m", b"1"]


def test_nothing_gives_way_in_vain() -> None:
    pool = Pool(whole=Share(9, 60))
    put(pool, "allocate", b"a", b"A")
    put(pool, "release", b"r" * 30, b"B")
    with pytest.raises(Refused):
        put(pool, "release", b"too big" * 6, b"C")
    assert len(pool) == 2


def test_one_key_does_not_fill_the_pool_for_all() -> None:
    pool = Pool()
    for name in (b"1", b"2", b"2"):
        put(pool, "allocate", name, b"greedy")
    with pytest.raises(Refused, match="of key") as caught:
        put(pool, "allocate", b"3", b"greedy")
    assert caught.value.reason is Reason.MempoolFull
    with pytest.raises(Refused, match="of key"):
        put(pool, "allocate", b"4" * 40, b"large", Share(2, 40))
    put(pool, "allocate", b"4", b"modest")
    pool.decide([Result(b"2", 1), Result(b"2", 1)], 0)
    put(pool, "allocate", b"3", b"greedy")
    pool.decide([Result(name, 1) for name in (b"1", b"3", b"4")], 0)
    assert not pool._used


def test_a_key_that_used_up_its_share_may_still_release() -> None:
    pool = Pool()
    put(pool, "allocate", b"1", b"A")
    put(pool, "allocate", b"2", b"A")
    put(pool, "release", b"r", b"A")
    assert pool.take(1000, 0) == [b"r", b"1"]
    put(pool, "release", b"s", b"A")
    with pytest.raises(Refused):
        put(pool, "release", b"t", b"A")


def test_what_is_no_longer_valid_leaves_by_itself() -> None:
    pool = Pool()
    put(pool, "allocate", b"1", b"A", until_ms=1_000)
    put(pool, "allocate", b"2", b"A", until_ms=2_000)
    told: list[Result] = []
    pool.wait_for(b"1", told.append)
    assert pool.take(1000, 1_000) == [b"1", b"2"]
    assert pool.take(1000, 1_001) == [b"2"]  # a block of that time would refuse it
    pool.decide([], 1_000)
    assert len(pool) == 2
    pool.decide([], 1_001)
    (result,) = told
    assert (result.reason, result.height, len(pool)) == (Reason.Expired, 0, 1)


def test_a_block_holds_no_more_than_so_many_from_all_classes() -> None:
    pool = Pool()
    for name, kind in ((b"1", "allocate"), (b"2", "allocate"), (b"r", "release")):
        put(pool, kind, name, name)
    assert pool.take(1000, 0, 2) == [b"r", b"1"]
    assert pool.take(1000, 0, 1) == [b"r"]
    assert pool.take(1000, 0, 9) == [b"r", b"1", b"2"]


def test_no_class_waits_for_ever() -> None:
    pool = Pool()
    put(pool, "allocate", b"old", b"A")
    room = 4 + TX_OVERHEAD
    for block in range(LIFT_BLOCKS):
        put(pool, "prove", b"p%d" % block, b"B")
        assert pool.take(room, 0) == [b"p%d" % block]
        pool.decide([Result(b"p%d" % block, block)], 0)
    put(pool, "prove", b"new", b"B")
    assert pool.take(room, 0) == [b"old"]
    assert (pool.count(Class.FIRST), pool.count(Class.ORDINARY)) == (2, 0)


def test_a_flood_is_not_lifted_past_others() -> None:
    """One at a time; and it does not hold up its sender's release."""
    pool = Pool()
    for index in range(9):
        put(pool, "allocate", b"%d" % index, b"A", Share(99, PLENTY))
    for _ in range(LIFT_BLOCKS):
        pool.decide([], 0)
    put(pool, "release", b"r", b"A", Share(99, PLENTY))
    put(pool, "allocate", b"b", b"B")
    assert pool.take(4 * (1 + TX_OVERHEAD), 0) == [b"0", b"r", b"1", b"b"]
    pool.decide([], 0)
    assert pool.count(Class.FIRST) == 2
    pool.decide([Result(b"0", 1)], 0)
    assert pool.take(3 * (1 + TX_OVERHEAD), 0) == [b"r", b"1", b"b"]


def test_everybody_who_waits_is_told_once() -> None:
    pool = Pool()
    first: list[Result] = []
    second: list[Result] = []
    gone: list[Result] = []
    for told in (first, second, gone):
        pool.wait_for(b"1", told.append)
    pool.forget(b"1", gone.append)
    result = Result(b"1", 7)
    pool.decide([result, Result(b"unknown", 7)], 0)
    pool.decide([result], 0)
    assert (first, second, gone) == ([result], [result], [])


async def test_peers_are_told_each_transaction_once_the_first_class_first() -> None:
    pool = Pool(gossip=True)
    for name, kind in ((b"a" * 10, "allocate"), (b"b" * 10, "allocate"), (b"c" * 10, "release"), (b"d", "allocate")):
        put(pool, kind, name, name)
    pool.add(decoded("allocate", b"heard"), heard=True)
    pool.decide([Result(b"b" * 10, 1)], 0)  # what is decided needs no telling
    async with asyncio.timeout(10):
        await pool.news()
    assert pool.untold(12 + TX_OVERHEAD) == [b"c" * 10]
    assert pool.untold(1 << 20) == [b"a" * 10, b"d"]
    assert pool.untold(1 << 20) == []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pool.news()
    waits = [b"a" * 10, b"c" * 10, b"d", b"heard"]
    told = pool.all(12 + TX_OVERHEAD)
    assert next(told) == waits[:1]
    pool.decide([Result(b"d", 2)], 0)
    assert list(told) == [[b"c" * 10], [b"heard"]], "what has left meanwhile is left out"


def test_what_lingers_is_named_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LINGERING", Share(2, 1 << 20))
    pool = Pool(gossip=True)
    for name in (b"1", b"2", b"3"):
        put(pool, "allocate", name, name)
    assert pool.lingering() == [], "they have only just arrived"
    put(pool, "allocate", b"4", b"4")
    assert [pool.lingering() for _ in range(3)] == [[b"1", b"2"], [b"3", b"4"], [b"1", b"2"]]
    pool.decide([Result(each, 1) for each in (b"1", b"2", b"4")], 0)
    assert pool.lingering() == [b"3"]
    put(pool, "allocate", b"5" * 9, b"5")
    pool.lingering()
    monkeypatch.setattr(waiting, "LINGERING", Share(2, 9))
    assert [pool.lingering() for _ in range(2)] == [[b"5" * 9], [b"3"]], "one that is larger goes alone"
    assert not Pool().lingering()
