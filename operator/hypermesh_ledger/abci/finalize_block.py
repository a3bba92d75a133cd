"""FinalizeBlock: execute the decided block; its results and app hash go back, nothing is written yet."""

from __future__ import annotations

from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Block, Result
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci


async def finalize_block(core: Core, request: abci.RequestFinalizeBlock) -> abci.ResponseFinalizeBlock:
    """The reason of a refusal is in data, which consensus covers; the sentence is in the log, which it does not."""
    time_ms = request.time.seconds * 1000 + request.time.nanos // 1_000_000
    block = Block(request.height, time_ms, request.hash, list(request.txs))
    pending = await core.finalize(block)
    return abci.ResponseFinalizeBlock(
        tx_results=[_result(result) for result in pending.outcome.results],
        app_hash=pending.prepared.head.app_hash,
    )


def _result(result: Result) -> abci.ExecTxResult:
    if result.reason is None:
        return abci.ExecTxResult()
    return abci.ExecTxResult(code=1, codespace="hypermesh", data=result.reason.encode(), log=result.message)
