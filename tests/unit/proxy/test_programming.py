"""What is wanted gets into the kernel's table in few transactions, what was read back counts, drift is repaired."""

from __future__ import annotations

import errno
import time
from ipaddress import IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_kernel import MemoryKernel

from hypermesh_agent.proxy.mappings import Difference, Key, Target, chunks, difference
from hypermesh_agent.proxy.programming import DRIFT, Programmer, ProgrammingFailed

OWN = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
NODE = bytes(15) + b"\x01"


def key(number: int) -> Key:
    return Key((int(OWN.network_address) + number).to_bytes(16, "big"), 6, 7443)


def target(seconds: float = 3600) -> Target:
    return Target(NODE, 7443, time.time_ns() // 1_000_000 + int(seconds * 1000))


def wanted(count: int) -> dict[Key, Target]:
    return {key(number): target() for number in range(count)}


async def started() -> tuple[MemoryKernel, Programmer]:
    kernel = MemoryKernel()
    programmer = Programmer(kernel, OWN)
    await programmer.start({})
    kernel.transactions.clear()
    return kernel, programmer


async def test_five_hundred_at_once_are_one_transaction() -> None:
    kernel, programmer = await started()
    mappings = wanted(500)
    assert await programmer.apply(mappings) == mappings.keys()
    assert kernel.transactions == [(500, 0)]
    assert kernel.table == mappings


async def test_adding_and_removing_go_together_and_repeating_changes_nothing() -> None:
    kernel, programmer = await started()
    await programmer.apply({key(1): target(), key(2): target()})
    kernel.transactions.clear()
    new = {key(3): target()}
    assert await programmer.apply(new, [key(1)]) == {key(3)}
    assert await programmer.apply(new, [key(1)]) == {key(3)}
    assert kernel.transactions == [(1, 1)]
    assert kernel.table is not None
    assert kernel.table.keys() == {key(2), key(3)}


async def test_what_the_kernel_does_not_show_is_not_programmed() -> None:
    class Forgetful(MemoryKernel):
        def change(self, change: Difference) -> None:
            super().change(Difference({k: t for k, t in change.add.items() if k != key(2)}, change.remove))

    programmer = Programmer(Forgetful(), OWN)
    await programmer.start({})
    assert await programmer.apply(wanted(4)) == {key(0), key(1), key(3)}


async def test_a_restart_keeps_what_is_right_and_only_that() -> None:
    kernel, programmer = await started()
    mappings = wanted(3)
    await programmer.apply(mappings)
    kernel.transactions.clear()
    again = Programmer(kernel, OWN)
    assert await again.start({key(0): mappings[key(0)], key(1): mappings[key(1)], key(9): target()}) == 1
    assert kernel.table is not None
    assert kernel.table.keys() == {key(0), key(1)}
    assert kernel.transactions == [(0, 1)]


@pytest.mark.parametrize("hand", ["deleted", "added", "redirected", "shortened", "table gone", "rules changed"])
async def test_an_audit_repairs_and_counts_what_others_changed(hand: str) -> None:
    kernel, programmer = await started()
    mappings = wanted(5)
    await programmer.apply(mappings)
    await programmer.audit()
    assert await programmer.audit() == 0
    assert kernel.table is not None
    match hand:
        case "deleted":
            del kernel.table[key(2)]
        case "added":
            kernel.table[key(77)] = target()
        case "redirected":
            kernel.table[key(2)] = kernel.table[key(2)]._replace(address=bytes(16))
        case "shortened":
            kernel.table[key(2)] = target(60)
        case "table gone":
            kernel.table = None
        case "rules changed":
            kernel.own = None
    kernel.changes += 1
    before = DRIFT._value.get()
    assert await programmer.audit() == 1
    assert DRIFT._value.get() == before + 1
    assert kernel.table == mappings
    assert kernel.own == OWN


async def test_an_unchanged_ruleset_is_not_read() -> None:
    kernel, programmer = await started()
    await programmer.apply(wanted(2))
    await programmer.audit()
    kernel.read = None  # type: ignore[method-assign,assignment]
    assert await programmer.audit() == 0


async def test_a_removal_that_the_kernel_was_faster_with_repairs_itself() -> None:
    kernel, programmer = await started()
    await programmer.apply(wanted(3))
    assert kernel.table is not None
    del kernel.table[key(1)]
    assert await programmer.apply({key(5): target()}, [key(1)]) == {key(5)}
    assert kernel.table.keys() == {key(0), key(2), key(5)}


async def test_an_ended_lease_is_neither_added_nor_removed() -> None:
    kernel, programmer = await started()
    assert await programmer.apply({key(1): target(-1)}) == set()
    await programmer.apply({}, [key(1)])
    assert kernel.transactions == []


async def test_a_refusing_kernel_is_an_error_with_its_words() -> None:
    kernel, programmer = await started()
    kernel.refuse = PermissionError(errno.EPERM, "Operation not permitted")
    with pytest.raises(ProgrammingFailed, match=r"ip6 hypermesh: Operation not permitted; .*CAP_NET_ADMIN"):
        await programmer.apply(wanted(1))
    kernel.refuse = None
    assert await programmer.audit() == 1
    assert kernel.table is not None
    assert kernel.table.keys() == {key(0)}


async def test_a_table_that_never_rests_is_given_up() -> None:
    class Restless(MemoryKernel):
        def intact(self, own: IPv6Network) -> bool:
            return False

    with pytest.raises(ProgrammingFailed, match="nft monitor"):
        await Programmer(Restless(), OWN).start({})


async def test_drop_removes_the_table() -> None:
    kernel, programmer = await started()
    await programmer.apply(wanted(2))
    await programmer.drop()
    assert kernel.table is None
    assert not programmer.wanted


tables = st.dictionaries(st.integers(0, 30).map(key), st.sampled_from([target(100), target(500)]), max_size=20)


@given(tables, tables, st.integers(1, 7))
def test_a_difference_in_chunks_leads_from_one_table_to_the_other(
    wish: dict[Key, Target], fact: dict[Key, Target], limit: int
) -> None:
    held = dict(fact)
    for part in chunks(difference(wish, fact), limit):
        assert len(part.add.keys() | part.remove) <= limit
        assert part.remove <= held.keys()
        for gone in part.remove:
            del held[gone]
        assert not part.add.keys() & held.keys()
        held.update(part.add)
    assert held == wish
    assert not difference(wish, held)
