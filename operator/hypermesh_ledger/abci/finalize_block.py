"""FinalizeBlock: execute the decided block, unless that is done; its results and app hash go back, unwritten."""

from __future__ import annotations

from typing import Final

from hypermesh_ledger.abci.blocks import block_of
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Result
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pb.tendermint.crypto import keys_pb2
from hypermesh_ledger.pb.tendermint.types import params_pb2, validator_pb2
from hypermesh_ledger.presence import Attendant

ABSENT: Final = validator_pb2.BLOCK_ID_FLAG_ABSENT


async def finalize_block(core: Core, request: abci.RequestFinalizeBlock) -> abci.ResponseFinalizeBlock:
    """The reason of a refusal is in data, which consensus covers; the sentence is in the log, which it does not."""
    pending = await core.finalize(block_of(request, request.decided_last_commit))
    _note(core, request.decided_last_commit)
    return abci.ResponseFinalizeBlock(
        tx_results=[_result(result) for result in pending.outcome.results],
        app_hash=pending.prepared.head.app_hash,
        validator_updates=[
            abci.ValidatorUpdate(pub_key=keys_pb2.PublicKey(mldsa65=each.consensus_key), power=each.power)
            for each in pending.outcome.powers
        ],
        consensus_param_updates=_parameters(pending.outcome.enable_height),
    )


def _note(core: Core, last: abci.CommitInfo) -> None:
    """For people and metrics; nothing that is decided depends on it."""
    attendants = [
        Attendant(each.validator.address, each.validator.power, each.block_id_flag != ABSENT) for each in last.votes
    ]
    core.presence.note(last.round, attendants)
    core.metrics.decided(last.round, core.presence.standings())


def _parameters(enable_height: int) -> params_pb2.ConsensusParams | None:
    if not enable_height:
        return None
    return params_pb2.ConsensusParams(abci=params_pb2.ABCIParams(vote_extensions_enable_height=enable_height))


def _result(result: Result) -> abci.ExecTxResult:
    if result.reason is None:
        return abci.ExecTxResult()
    return abci.ExecTxResult(code=1, codespace="hypermesh", data=result.reason.encode(), log=result.message)
