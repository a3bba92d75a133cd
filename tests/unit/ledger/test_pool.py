"""The mempool: order, limits, and that everybody who waits is told."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import pool as pool_module
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pool import TX_OVERHEAD, Pool


def decoded(kind: str, name: bytes, signer: bytes = b"") -> operations.Decoded:
    return operations.Decoded(ledger_pb2.Envelope(signer=signer), ledger_pb2.Operation(), kind, name)


async def test_proofs_first_then_first_come() -> None:
    pool = Pool()
    for kind, name in (("allocate", b"1"), ("prove", b"2"), ("release", b"3"), ("enrol_node", b"4")):
        pool.add(decoded(kind, name), name)
    assert await pool.take(1000, 0) == [b"2", b"4", b"1", b"3"]
    assert len(pool) == 4  # a block that is not agreed on takes nothing
    pool.decide([Result(b"2", 1), Result(b"1", 1)])
    assert await pool.take(1000, 0) == [b"4", b"3"]


async def test_a_block_is_never_too_big() -> None:
    pool = Pool()
    for name in (b"a" * 10, b"b" * 10, b"c" * 10):
        pool.add(decoded("allocate", name), name)
    assert len(await pool.take(2 * (10 + TX_OVERHEAD), 0)) == 2
    assert await pool.take(5, 0) == []


async def test_taking_waits_for_the_first() -> None:
    pool = Pool()
    taking = asyncio.create_task(pool.take(1000, 30))
    await asyncio.sleep(0)
    pool.add(decoded("allocate", b"1"), b"1")
    async with asyncio.timeout(10):
        assert await taking == [b"1"]
    pool.decide([Result(b"1", 1)])
    assert await pool.take(1000, 0.01) == []


async def test_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_TXS", 2)
    pool = Pool()
    pool.add(decoded("allocate", b"1"), b"1")
    pool.add(decoded("allocate", b"2"), b"2")
    pool.add(decoded("allocate", b"2"), b"2")
    with pytest.raises(Refused) as caught:
        pool.add(decoded("allocate", b"3"), b"3")
    assert caught.value.reason is Reason.MempoolFull


async def test_one_key_does_not_fill_the_pool_for_all() -> None:
    pool = Pool()
    pool.add(decoded("prove", b"1", b"greedy"), b"1", share=2)
    pool.add(decoded("allocate", b"2", b"greedy"), b"2", share=2)
    pool.add(decoded("allocate", b"2", b"greedy"), b"2", share=2)
    with pytest.raises(Refused, match="transactions of key") as caught:
        pool.add(decoded("allocate", b"3", b"greedy"), b"3", share=2)
    assert caught.value.reason is Reason.MempoolFull
    pool.add(decoded("allocate", b"4", b"modest"), b"4", share=2)
    pool.decide([Result(b"2", 1), Result(b"2", 1)])
    pool.add(decoded("allocate", b"3", b"greedy"), b"3", share=2)
    pool.decide([Result(name, 1) for name in (b"1", b"3", b"4")])
    assert not pool._signed


async def test_everybody_who_waits_is_told_once() -> None:
    pool = Pool()
    first, second, gone = pool.wait_for(b"1"), pool.wait_for(b"1"), pool.wait_for(b"1")
    gone.cancel()
    pool.forget(b"1", gone)
    result = Result(b"1", 7)
    pool.decide([result, Result(b"unknown", 7)])
    assert (await first, await second) == (result, result)


async def test_peers_are_told_each_transaction_once() -> None:
    pool = Pool(gossip=True)
    for name in (b"a" * 10, b"b" * 10):
        pool.add(decoded("allocate", name), name)
    assert pool.reap(12 + TX_OVERHEAD) == [b"a" * 10]
    assert pool.reap(0) == [b"b" * 10]
    assert pool.reap(0) == []
