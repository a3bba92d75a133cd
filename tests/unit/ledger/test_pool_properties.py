"""What holds for the mempool whatever comes in, in whichever order blocks take it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.refusals import Refused
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool import Class, Pool, Share
from hypermesh_ledger.pool.lanes import TX_OVERHEAD
from hypermesh_ledger.pool.priority import LIFT_BLOCKS, class_of

from .pooled import LATE, decoded

KINDS = ("allocate", "update_asset", "release", "prove")
LARGEST = 40
arrival = st.tuples(st.sampled_from("ABCDE"), st.sampled_from(KINDS), st.integers(8, LARGEST), st.integers(0, 12))
"""Signer, kind, bytes, and blocks of validity (0: for ever)."""
block = st.tuples(st.integers(0, 300), st.sampled_from(["ours", "another's", "fails"]))
steps = st.lists(st.one_of(arrival, block), max_size=120)
WHOLE, SHARE = Share(24, 24 * 30), Share(10, 10 * 30)


def named(number: int, signer: str, size: int) -> bytes:
    return f"{signer}{number:06d}".encode().ljust(size, b".")


def laned(names: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """(how many before it are of the same signer, name)."""
    seen: Counter[int] = Counter()
    for name in names:
        yield seen[name[0]], name
        seen[name[0]] += 1


@settings(max_examples=150, deadline=None)
@given(steps)
def test_nothing_is_lost_doubled_or_too_much(todo: list[tuple[object, ...]]) -> None:
    """Every admitted transaction is in the pool, or was decided, or was reported lost: exactly one of the three."""
    pool, lost = Pool(whole=WHOLE), Counter[Class]()
    pool.lost = lambda reason, rank: lost.update([rank])
    admitted: dict[bytes, int] = {}
    decided: set[bytes] = set()
    blocks = 0
    for number, step in enumerate(todo):
        match step:
            case (str(signer), str(kind), int(size), int(lasts)):
                name, until = named(number, signer, size), blocks + lasts if lasts else LATE
                try:
                    pool.add(decoded(kind, name, signer.encode(), until), SHARE)
                    admitted[name] = until
                except Refused:
                    assert name not in pool
            case (int(room), str(fate)):
                taken = pool.take(room, blocks + 1)
                assert sum(len(tx) + TX_OVERHEAD for tx in taken) <= room
                assert len(taken) == len(set(taken))
                assert not decided & set(taken)
                assert all(admitted[tx] > blocks for tx in taken)
                if fate == "fails":
                    assert pool.take(room, blocks + 1) == taken  # asking changes nothing
                    continue
                gone = taken if fate == "ours" else sorted(name for name in admitted if name in pool)[-len(taken) :]
                blocks += 1
                decided |= {name for name in gone if name in pool}
                pool.decide([Result(tx, blocks) for tx in gone], blocks)
        waiting = [name for name in admitted if name in pool]
        assert len(pool) == len(waiting) == sum(pool.count(rank) for rank in Class)
        assert len(admitted) == len(waiting) + len(decided) + lost.total()
        assert all(admitted[name] >= blocks for name in waiting)
        assert WHOLE.holds(len(waiting), pool.size)
        assert pool.size == sum(len(name) + TX_OVERHEAD for name in waiting)
        for key in {name[0] for name in waiting}:
            mine = [name for name in waiting if name[0] == key]
            assert SHARE.holds(len(mine), sum(len(name) + TX_OVERHEAD for name in mine))
    assert sorted(pool.take(1 << 20, blocks)) == sorted(name for name in admitted if name in pool)
    pool.decide([Result(name, blocks) for name in admitted], blocks)
    assert (len(pool), pool.size, pool._used) == (0, 0, {})


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(arrival, st.integers(0, 300)), max_size=120), st.sampled_from(KINDS))
def test_a_newcomer_waits_for_one_of_each_other_sender(todo: list[object], kind: str) -> None:
    """Whatever the past: before the first transaction of a sender there is at most one of each lane of its class."""
    pool = Pool()
    kinds: dict[bytes, str] = {}
    for number, step in enumerate(todo):
        match step:
            case (str(signer), str(its_kind), int(size), int()):
                name = named(number, signer, size)
                kinds[name] = its_kind
                pool.add(decoded(its_kind, name, signer.encode()))
            case int(room):
                pool.decide([Result(tx, 0) for tx in pool.take(room, 0)], 0)
    mine = b"X" * LARGEST
    pool.add(decoded(kind, mine, b"X"))
    order = pool.take(1 << 20, 0)
    before = order[: order.index(mine)]
    if class_of(kind) is Class.ORDINARY:
        before = before[pool.count(Class.FIRST) :]
    lanes = Counter((name[0], class_of(kinds[name])) for name in before)
    assert not lanes or max(lanes.values()) == 1


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(8, LARGEST)), max_size=60), st.integers(40, 400))
def test_lanes_that_wait_get_the_same_bytes(arrivals: list[tuple[str, int]], room: int) -> None:
    """Lanes that still wait differ by at most three of the largest transactions.

    Two by the order itself (the paper's bound), one by what does not fit at the end of a block.
    """
    pool = Pool()
    for number, (signer, size) in enumerate(arrivals):
        name = named(number, signer, size)
        pool.add(decoded("allocate", name, signer.encode()))
    left = Counter(signer for signer, _ in arrivals)
    served: Counter[str] = Counter()
    while len(pool):
        taken = pool.take(max(room, LARGEST + TX_OVERHEAD), 0)
        assert taken
        for tx in taken:
            served[chr(tx[0])] += len(tx) + TX_OVERHEAD
            left[chr(tx[0])] -= 1
        waiting = [served[signer] for signer, count in left.items() if count]
        if waiting:
            assert max(waiting) - min(waiting) <= 3 * (LARGEST + TX_OVERHEAD)
        pool.decide([Result(tx, 0) for tx in taken], 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(arrival, max_size=80))
def test_classes_in_order_and_each_lane_first_come_first_served(arrivals: list[tuple[str, str, int, int]]) -> None:
    pool = Pool()
    lanes: dict[tuple[str, Class], list[bytes]] = {}
    for number, (signer, kind, size, _) in enumerate(arrivals):
        name = named(number, signer, size)
        pool.add(decoded(kind, name, signer.encode()))
        lanes.setdefault((signer, class_of(kind)), []).append(name)
    order = pool.take(1 << 20, 0)
    ranks = [rank for name in order for (_, rank), held in lanes.items() if name in held]
    assert ranks == sorted(ranks)
    for held in lanes.values():
        assert [name for name in order if name in held] == held


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 20))
def test_an_ordinary_one_starves_under_no_flood_of_the_first_class(floods: int, per_block: int, ahead: int) -> None:
    """At most LIFT_BLOCKS blocks, and then as many as one transaction of each lane takes."""
    pool, size = Pool(), LARGEST + TX_OVERHEAD
    signers = [chr(ord("A") + index) for index in range(floods)]
    number = 0

    def flood(each: int) -> None:
        nonlocal number
        for signer in signers:
            for _ in range(each):
                number += 1
                name = named(number, signer, LARGEST)
                pool.add(decoded("prove", name, signer.encode()), Share(1 << 20, 1 << 40))

    flood(ahead)
    mine = b"X" * LARGEST
    pool.add(decoded("allocate", mine, b"X"))
    bound = LIFT_BLOCKS + -(-(floods + 1) // per_block)
    for waited in range(1, bound + 1):
        flood(per_block)
        taken = pool.take(per_block * size, 0)
        if mine in taken:
            return
        pool.decide([Result(tx, waited) for tx in taken], 0)
    raise AssertionError(f"not in {bound} blocks")
