"""The same forgeries by other ledgers' roads: what they tell, what they propose, and what is decided.

A lying proposer can put anything into a block, and when enough others lie too, have it decided: whatever it is, honest
applications must answer alike, refuse each transaction for its reason, and go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh_ledger.abci.server import METHODS
from hypermesh_ledger.core import Core
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

from ...adversary.forgeries import BAD_SIGNATURE, FORM, forgeries
from ...adversary.scenes import Forgery
from ...builders import TrustRoot
from ..ledger.test_core import core_of
from .test_forgeries import Stage, seeded, transaction

SAMPLE = 1_000
"""Forgeries of each road; all of them take the road of test_forgeries."""
ACCEPT = abci.ResponseProcessProposal.ACCEPT
NOT_THE_SIGNERS = BAD_SIGNATURE | {Reason.WrongChain, Reason.Expired, Reason.ValidityTooLong, Reason.UnknownSigner}


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


async def test_what_a_peer_tells_is_judged_as_well_as_what_a_client_brings(core: Core, found: list[Forgery]) -> None:
    """But for an Allocate's terms, which its block judges: see below. What is pooled at all is signed rightly."""
    told = [*(forgery.tx for forgery in found), *garbage(random.Random(1)), *garbage(random.Random(2))]
    for first in range(0, len(told), 64):
        for decoded in await core.admission.hear(told[first : first + 64]):
            with contextlib.suppress(Refused):  # for its proof
                await core.admission.admit(decoded.raw, decoded.tx_hash, decoded, heard=True)
    pooled = set(core.pool.take(1 << 30, 0))
    let_in = [forgery for forgery in found if forgery.tx in pooled]
    assert len(let_in) == len(pooled), "no garbage"
    for forgery in let_in:
        assert operations.decode(forgery.tx).kind == "allocate", forgery.name
        assert forgery.reasons - NOT_THE_SIGNERS, forgery.name


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
