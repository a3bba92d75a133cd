"""The same forgeries by CometBFT's roads: CheckTx, InsertTx, proposals and decided blocks, through the ABCI methods.

A lying proposer can put anything into a block, and when enough others lie too, have it decided: whatever it is, honest
applications must answer alike, refuse each transaction for its reason, and go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.abci.check_tx import RETRY_CODE
from hypermesh_ledger.abci.server import METHODS
from hypermesh_ledger.core import Core
from hypermesh_ledger.inbox import MAX_TXS
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

from ...adversary.forgeries import FORM, forgeries
from ...adversary.scenes import Forgery
from ...builders import TrustRoot
from ..ledger.test_core import core_of
from .test_forgeries import Stage, seeded, transaction

SAMPLE = 1_000
"""Forgeries of each road; all of them take the road of test_forgeries."""
ACCEPT = abci.ResponseProcessProposal.ACCEPT


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(TrustRoot(), tmp_path_factory.mktemp("plot"))


@pytest.fixture(scope="module")
def found(stage: Stage) -> list[Forgery]:
    chance = seeded()
    return chance.sample(forgeries(stage.scene(), chance), SAMPLE)


@pytest.fixture
async def core(stage: Stage, tmp_path: Path) -> Any:
    made, verifier = core_of(stage, tmp_path / "state")
    yield made
    await verifier.close()
    made.store.close()


def garbage(chance: random.Random) -> Iterator[bytes]:
    """No transactions at all."""
    yield from (b"", b"\0", b"\xff" * 9, b"\x0a\x00", bytes(operations.MAX_ENVELOPE_BYTES + 1))
    for _ in range(200):
        yield chance.randbytes(chance.randrange(1, 3_000))


async def call(core: Core, name: str, request: Any) -> Any:
    """As the ABCI server calls it, a request read from bytes."""
    async with asyncio.timeout(120):
        return await METHODS[name](core, type(request).FromString(request.SerializeToString()))


def block(stage: Stage, core: Core, txs: Sequence[bytes]) -> abci.RequestFinalizeBlock:
    at = Timestamp()
    at.FromMilliseconds(stage.now_ms + 1)
    return abci.RequestFinalizeBlock(height=core.store.head.height + 1, time=at, hash=b"h" * 32, txs=txs)


async def test_check_tx_refuses_with_the_reason_and_pools_nothing(core: Core, found: list[Forgery]) -> None:
    for forgery in found:
        answer = await call(core, "check_tx", abci.RequestCheckTx(tx=forgery.tx))
        assert answer.code == 1, forgery.name
        assert Reason(answer.data.decode()) in forgery.reasons, forgery.name
        assert answer.log
    for tx in garbage(random.Random(1)):
        answer = await call(core, "check_tx", abci.RequestCheckTx(tx=tx))
        assert (answer.code, Reason(answer.data.decode()) in FORM) == (1, True)
    assert not len(core.pool)


async def test_insert_tx_drops_what_is_forged_and_never_holds_more_than_its_bound(
    core: Core, found: list[Forgery]
) -> None:
    """Offered faster than they can be checked: the peer is told to come again, and nothing stays behind."""
    codes = []
    for tx in [*(forgery.tx for forgery in found), *garbage(random.Random(2)), *(forgery.tx for forgery in found)]:
        codes.append((await METHODS["insert_tx"](core, abci.RequestInsertTx(tx=tx))).code)
        assert len(core.inbox) <= MAX_TXS
    assert set(codes) <= {0, RETRY_CODE}
    async with asyncio.timeout(120):
        while len(core.inbox):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (core.inbox._bytes, len(core.pool)) == (0, 0)


async def test_a_proposal_is_rejected_for_its_form_alone(core: Core, stage: Stage, found: list[Forgery]) -> None:
    """Those that judge by more than form could differ; what is well formed and forged is refused by execution."""
    honest = [transaction(original) for original in stage.scene().originals]
    assert (await call(core, "process_proposal", abci.RequestProcessProposal(txs=honest))).status == ACCEPT
    for tx in [*(forgery.tx for forgery in found), *garbage(random.Random(3))]:
        answer = await call(core, "process_proposal", abci.RequestProcessProposal(txs=[*honest, tx]))
        assert (answer.status == ACCEPT) == _well_formed(tx), tx.hex()[:200]
    twice = abci.RequestProcessProposal(txs=[*honest, honest[0]])
    assert (await call(core, "process_proposal", twice)).status != ACCEPT


async def test_a_decided_block_of_forgeries_changes_nothing_but_what_is_right_in_it(
    core: Core, stage: Stage, found: list[Forgery]
) -> None:
    """Twice the same block: as after a crash, or by another validator. Then the honest ones among the forgeries."""
    idle = await call(core, "finalize_block", block(stage, core, []))
    rubbish = list(garbage(random.Random(4)))
    asked = block(stage, core, [*(forgery.tx for forgery in found), *rubbish])
    first, second = [await call(core, "finalize_block", asked) for _ in range(2)]
    assert first == second
    assert first.app_hash == idle.app_hash
    assert not first.validator_updates
    for forgery, result in zip(found, first.tx_results, strict=False):
        assert (result.code, Reason(result.data.decode()) in forgery.reasons) == (1, True), forgery.name
    assert {Reason(result.data.decode()) for result in first.tx_results[len(found) :]} <= FORM
    honest = [transaction(original) for original in stage.scene().originals]
    mixed = await call(core, "finalize_block", block(stage, core, [*asked.txs[:100], *honest, *honest, *rubbish]))
    assert [result.code for result in mixed.tx_results[100 : 100 + len(honest)]] == [0] * len(honest)
    alone = await call(core, "finalize_block", block(stage, core, [*honest, *honest]))
    assert mixed.app_hash == alone.app_hash != idle.app_hash
    await core.commit()
    assert core.store.head.app_hash == alone.app_hash


def _well_formed(tx: bytes) -> bool:
    try:
        operations.decode(tx)
    except Refused:
        return False
    return True
