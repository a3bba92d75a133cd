"""The ABCI methods once votes are extended: what is proposed, accepted, said and let through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, votes_pb2
from hypermesh_ledger import inspection, outcomes, rpc
from hypermesh_ledger.abci import prepare_proposal as prepare_module
from hypermesh_ledger.abci.extend_vote import extend_vote
from hypermesh_ledger.abci.finalize_block import finalize_block
from hypermesh_ledger.abci.prepare_proposal import prepare_proposal
from hypermesh_ledger.abci.process_proposal import process_proposal
from hypermesh_ledger.abci.verify_vote_extension import verify_vote_extension
from hypermesh_ledger.core import Core
from hypermesh_ledger.execution import Result, extensions
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pb.tendermint.types import validator_pb2
from hypermesh_ledger.pool.lanes import TX_OVERHEAD

from ...builders import TrustRoot
from .extended import Extended
from .pooled import decoded
from .test_core import core_of

COMMIT, NIL = validator_pb2.BLOCK_ID_FLAG_COMMIT, validator_pb2.BLOCK_ID_FLAG_NIL
ABSENT = validator_pb2.BLOCK_ID_FLAG_ABSENT
ACCEPT, REJECT = abci.ResponseProcessProposal.ACCEPT, abci.ResponseProcessProposal.REJECT


@pytest.fixture(scope="module")
def chain(root: TrustRoot) -> Extended:
    return Extended(root)


@pytest.fixture
async def core(chain: Extended, tmp_path: Path) -> AsyncIterator[Core]:
    made, verifier = core_of(chain, tmp_path / "state")
    yield made
    await verifier.close()
    made.store.close()


def preparing(chain: Extended, max_tx_bytes: int = 1 << 20) -> abci.RequestPrepareProposal:
    """The fourth validator voted against any block."""
    request = abci.RequestPrepareProposal(height=chain.height + 1, max_tx_bytes=max_tx_bytes)
    for index, each in enumerate(chain.commit(chain.height).votes):
        vote = request.local_last_commit.votes.add(block_id_flag=NIL if index == 3 else COMMIT)
        vote.validator.address = each.address
        if index != 3:
            vote.vote_extension, vote.extension_signature = each.extension, each.signature
    return request


async def status(
    core: Core, chain: Extended, txs: Sequence[bytes], flags: Sequence[int] = (COMMIT,) * 3 + (NIL,)
) -> int:
    request = abci.RequestProcessProposal(height=chain.height + 1, txs=txs)
    for vote, flag in zip(chain.votes(chain.height), flags, strict=True):
        request.proposed_last_commit.votes.add(block_id_flag=flag).validator.address = vote.address  # type: ignore[arg-type]
    return (await process_proposal(core, request)).status


async def test_what_is_proposed_is_accepted_also_when_it_is_empty(core: Core, chain: Extended) -> None:
    (alone,) = (await prepare_proposal(core, preparing(chain))).txs  # its clock is old: no operations
    assert extensions.recognise(alone)
    assert await status(core, chain, [alone]) == ACCEPT


@pytest.mark.parametrize("noise", [b"\xff", b"\x12" * (1 << 20)])
async def test_a_late_vote_that_says_noise_spoils_no_proposal(core: Core, chain: Extended, noise: bytes) -> None:
    """CometBFT counts votes that come after two thirds, also in the last commit, and asks nobody about their words."""
    request = preparing(chain)
    late = request.local_last_commit.votes[3]
    late.block_id_flag, late.vote_extension, late.extension_signature = COMMIT, noise, b"s" * 3309
    (first,) = (await prepare_proposal(core, request)).txs
    assert len(first) < request.max_tx_bytes
    assert await status(core, chain, [first], (COMMIT,) * 4) == ACCEPT


async def test_votes_take_their_part_of_the_room(core: Core, chain: Extended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "STALE_S", 1 << 40)
    (first,) = (await prepare_proposal(core, preparing(chain))).txs
    tx = b"x" * 100
    core.pool.add(decoded("allocate", tx))
    room = len(first) + len(tx) + 2 * TX_OVERHEAD
    assert list((await prepare_proposal(core, preparing(chain, room))).txs) == [first, tx]
    assert list((await prepare_proposal(core, preparing(chain, room - 1))).txs) == [first]


async def test_wrong_missing_double_and_misplaced_votes_are_rejected(core: Core, chain: Extended) -> None:
    (first,) = (await prepare_proposal(core, preparing(chain))).txs
    good = chain.leaving(0)
    assert await status(core, chain, [first, good]) == ACCEPT
    changed = bytearray(first)
    changed[-1] ^= 1
    for txs in ([], [good], [first, first], [good, first], [first, good, first], [bytes(changed)], [first, good, good]):
        assert await status(core, chain, txs) == REJECT
    assert await status(core, chain, [first], (COMMIT,) * 4) == ACCEPT, "who came late and said noise is left out"
    assert await status(core, chain, [first], (COMMIT, COMMIT, ABSENT, NIL)) == REJECT, "one too many"


async def test_a_block_before_they_begin_must_not_show_any(root: TrustRoot, tmp_path: Path) -> None:
    early = Extended(root, joined=False)
    core, verifier = core_of(early, tmp_path / "state")
    shown = extensions.encode(votes_pb2.ExtendedCommit(height=early.height))
    request = abci.RequestProcessProposal(height=early.height + 1, txs=[shown])
    assert (await process_proposal(core, request)).status == REJECT
    assert (await process_proposal(core, abci.RequestProcessProposal(height=early.height + 1))).status == ACCEPT
    await verifier.close()
    core.store.close()


async def test_nobody_gets_votes_in_as_a_transaction(core: Core, chain: Extended) -> None:
    (first,) = (await prepare_proposal(core, preparing(chain))).txs
    with pytest.raises(Refused) as caught:
        await core.admission.submit(first)
    assert caught.value.reason is Reason.Malformed
    assert not len(core.pool)


async def test_what_this_validator_says_passes_its_own_check(core: Core) -> None:
    said = (await extend_vote(core, abci.RequestExtendVote(height=9))).vote_extension
    assert extensions.parse(said)
    for extension, expected in (
        (said, abci.ResponseVerifyVoteExtension.ACCEPT),
        (b"", abci.ResponseVerifyVoteExtension.ACCEPT),
        (b"\xff", abci.ResponseVerifyVoteExtension.REJECT),
        (b"\xba\x3e" + b"\xff\x7f" * 4096, abci.ResponseVerifyVoteExtension.REJECT),
    ):
        request = abci.RequestVerifyVoteExtension(vote_extension=extension)
        assert (await verify_vote_extension(core, request)).status == expected


async def test_an_error_costs_the_extension_and_not_the_vote(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bytes:
        raise OSError("anything")

    monkeypatch.setattr(core, "extension", fails)
    assert (await extend_vote(core, abci.RequestExtendVote(height=9))).vote_extension == b""


async def test_cometbft_is_told_when_they_begin(root: TrustRoot, tmp_path: Path) -> None:
    early = Extended(root, joined=False)
    for number in range(3):
        early.go(early.joining(number, extends_votes=True))
    core, verifier = core_of(early, tmp_path / "state")
    block = early.block_of(early.joining(3, extends_votes=True))
    request = abci.RequestFinalizeBlock(height=block.height, txs=block.txs, hash=block.hash)
    request.time.seconds, request.time.nanos = block.time_ms // 1000, block.time_ms % 1000 * 1_000_000
    request.decided_last_commit.votes.add(block_id_flag=COMMIT).validator.address = block.votes[0].address
    answer = await finalize_block(core, request)
    assert answer.consensus_param_updates.abci.vote_extensions_enable_height == block.height + 2
    assert not answer.consensus_param_updates.HasField("block")
    assert len(answer.validator_updates) == 3
    await core.commit()
    request.height, request.txs[:] = block.height + 1, []
    request.time.seconds += 1
    assert not (await finalize_block(core, request)).HasField("consensus_param_updates")
    await verifier.close()
    core.store.close()


async def test_shown_votes_are_no_operations_to_pool_and_metrics(core: Core, chain: Extended) -> None:
    block = chain.block_of(*chain.first(), chain.leaving(5))
    pending = await core.finalize(block)
    assert [result.reason for result in pending.outcome.results] == [None, Reason.NotValidator]
    await core.commit()
    assert core.metrics._operations._value.get() == 0  # type: ignore[attr-defined]
    assert core.metrics._votes._value.get() == 1  # type: ignore[attr-defined]
    assert operations.tx_hash(block.txs[0]) not in core.pool


def test_who_looks_at_a_block_sees_its_operations(chain: Extended) -> None:
    """Each with its own outcome, though the votes stand before them."""
    (votes,), tx = chain.first(), chain.leaving(5)
    block = rpc.RawBlock(height=9, time_ms=1, hash=b"h" * 32, proposer=b"p" * 20, txs=[votes, tx])
    row = outcomes.row_of(1, [Result(operations.tx_hash(tx), 9, Reason.NotValidator, "text")])
    (record,) = inspection._records(block, ledger_pb2.Outcomes.FromString(row))
    assert (record.envelope, record.index, record.known, record.reason) == (tx, 1, True, "NotValidator")
    alone = rpc.RawBlock(height=9, time_ms=1, hash=b"h" * 32, proposer=b"p" * 20, txs=[votes])
    assert inspection._records(alone, None) == []
    assert outcomes.row_of(1, []) == b""
