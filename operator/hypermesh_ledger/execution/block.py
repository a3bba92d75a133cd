"""execute: one block on one state, and judge: one transaction in it.

Order within a block: a new epoch when it is time, who was silent through those before, seeds for what memory
committed, leases that are over, who of the validators was there or lied, what they said beside their votes, then the
transactions one by one. A refused transaction leaves nothing behind but its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hypermesh import falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Signature, Verify
from hypermesh_ledger.execution import (
    allocation,
    behaviour,
    delegation,
    enrolment,
    epochs,
    extensions,
    memory,
    places,
    proving,
    rechecks,
    registration,
    validators,
)
from hypermesh_ledger.execution.context import Context, Lie, Signer, Vote, signer_of
from hypermesh_ledger.state import Fork, Reader, Writes


@dataclass(frozen=True, slots=True)
class Block:
    """What consensus decided. time_ms: the block's, unix; hash: 32 bytes; votes: who signed the block before."""

    height: int
    time_ms: int
    hash: bytes
    txs: Sequence[bytes]
    votes: Sequence[Vote] = ()
    lies: Sequence[Lie] = ()
    round: int = 0
    """Of the commit of the block before."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one transaction: committed at height, or refused for reason (height 0: before any block)."""

    tx_hash: bytes
    height: int
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A block's effect: what to write, one result a transaction, the epoch it ran in, and validators' new powers.

    extended: the votes that its first transaction showed; enable_height: when votes begin to be extended, else 0.
    """

    writes: Writes
    results: list[Result]
    epoch: ledger_pb2.Epoch
    powers: Sequence[validators.Power] = ()
    extended: votes_pb2.ExtendedCommit | None = None
    enable_height: int = 0

    @property
    def operations(self) -> list[Result]:
        """The results of what was submitted: without those of what a proposer has to show."""
        return self.results[1:] if self.extended is not None else self.results


Decode = Callable[[bytes], operations.Decoded]


def execute(base: Reader, block: Block, verify: Verify, decode: Decode = operations.decode) -> Outcome:
    """The whole state machine. The state must hold a genesis and a chain id (see genesis).

    decode: operations.decode, or one that remembers what it gave.
    """
    genesis, chain_id = _fixed(base)
    fork = Fork(base)
    before = epochs.current(base)
    epoch = epochs.advance(fork, genesis, block.time_ms, block.hash)
    if genesis.trust_rules:
        behaviour.turn(fork, before.number, epoch, genesis.proofs.epoch_ms)
        behaviour.sweep(fork, epoch.number)
    if genesis.proofs.HasField("memory"):
        memory.settle(fork, genesis, before, epoch, block.time_ms, block.hash)
    allocation.expire(fork, block.time_ms, block.height)
    validators.attend(fork, block.height, block.time_ms, block.votes, block.lies)
    results: list[Result] = []
    extended, txs = _shown(base, block, chain_id)
    if extended is not None:
        extensions.take_in(fork, extended, block.time_ms)
        rechecks.take_in(fork, extensions.heard(extended), epoch.number)
        places.take_in(fork, extended, epoch.number)
        results.append(Result(operations.tx_hash(block.txs[0]), block.height))
    for tx in txs:
        child = Fork(fork)
        try:
            decoded = decode(tx)
            context = _context(child, block, chain_id, genesis, epoch, verify, decoded)
            height = _judge(context)
        except Refused as refusal:
            results.append(Result(operations.tx_hash(tx), block.height, refusal.reason, refusal.message))
        else:
            fork.merge(child)
            results.append(Result(decoded.tx_hash, height))
    powers = validators.powers(base, fork)
    enable_height = extensions.follow(fork, block.height, block.votes, bool(powers))
    return Outcome(fork.writes, results, epoch, powers, extended, enable_height)


def _shown(base: Reader, block: Block, chain_id: str) -> tuple[votes_pb2.ExtendedCommit | None, Sequence[bytes]]:
    """The votes that the block shows, if it must and they are right, and its other transactions.

    Validators accept no block with wrong ones; one that more than two thirds accepted all the same is executed without.
    """
    if not block.txs or not extensions.required(base, block.height):
        return None, block.txs
    try:
        first = extensions.verified(base, chain_id, block.height, block.round, block.votes, block.txs[0])
    except Refused:
        return None, block.txs
    return first, block.txs[1:]


def judge(base: Reader, block: Block, decoded: operations.Decoded, verify: Verify) -> int:
    """Try one decoded transaction as if alone in a block; returns its height. Raises Refused."""
    genesis, chain_id = _fixed(base)
    fork = Fork(base)
    epoch = epochs.advance(fork, genesis, block.time_ms, block.hash)
    return _judge(_context(fork, block, chain_id, genesis, epoch, verify, decoded, trial=True))


def new_lease(base: Reader, block: Block, decoded: operations.Decoded, verify: Verify) -> bool:
    """Whether it is an Allocate of an operator, not committed before, signed and in time; its terms are not judged.

    Raises Refused when it is signed wrongly or not in time.
    """
    if decoded.kind != "allocate" or base.get(keys.allocation(decoded.operation.allocate.allocation_id)) is not None:
        return False
    genesis, chain_id = _fixed(base)
    context = _context(Fork(base), block, chain_id, genesis, epochs.current(base), verify, decoded, trial=True)
    _check_validity(context, decoded.operation)
    return _signer(context).body.role == trust_pb2.ROLE_OPERATOR


def _context(
    state: Fork,
    block: Block,
    chain_id: str,
    genesis: ledger_pb2.Genesis,
    epoch: ledger_pb2.Epoch,
    verify: Verify,
    decoded: operations.Decoded,
    *,
    trial: bool = False,
) -> Context:
    return Context(
        state, block.height, block.time_ms, block.hash, chain_id, genesis, epoch, verify, decoded, block.votes, trial
    )


def _fixed(base: Reader) -> tuple[ledger_pb2.Genesis, str]:
    genesis, chain_id = base.get(keys.GENESIS), base.get(keys.CHAIN_ID)
    if genesis is None or chain_id is None:
        raise ValueError("the state holds no genesis: InitChain did not run")
    return _genesis(genesis), chain_id.decode()


@lru_cache(4)
def _genesis(value: bytes) -> ledger_pb2.Genesis:
    """Shared: never changed."""
    return ledger_pb2.Genesis.FromString(value)


def _judge(context: Context) -> int:
    operation = context.decoded.operation
    _check_validity(context, operation)
    if context.decoded.kind == "enrol_node":
        body = enrolment.check_certificate(context, operation.enrol_node.certificate)
        public = body.subject_key
        context.verify(context.decoded.once(_signature, public, falcon.key_id(public)))
        return enrolment.enrol_node(context, operation.enrol_node)
    signer = _signer(context)
    match context.decoded.kind:
        case "commit_work":
            return proving.commit_work(context, signer, operation.commit_work)
        case "prove":
            return proving.prove(context, signer, operation.prove)
        case "commit_memory":
            return memory.commit_memory(context, signer, operation.commit_memory)
        case "prove_memory":
            return memory.prove_memory(context, signer, operation.prove_memory)
        case "register_asset":
            return registration.register_asset(context, signer, operation.register_asset)
        case "update_asset":
            return registration.update_asset(context, signer, operation.update_asset)
        case "retire_asset":
            return registration.retire_asset(context, signer, operation.retire_asset)
        case "allocate":
            return allocation.allocate(context, signer, operation.allocate)
        case "release":
            return allocation.release(context, signer, operation.release)
        case "join_validator":
            return validators.join_validator(context, signer, operation.join_validator)
        case "leave_validator":
            return validators.leave_validator(context, signer)
        case "delegate":
            return delegation.delegate(context, signer, operation.delegate)
        case "revoke":
            return delegation.revoke(context, signer, operation.revoke)
    raise Refused(Reason.Malformed, f"Operation {context.decoded.kind} is not known here.")


def _check_validity(context: Context, operation: ledger_pb2.Operation) -> None:
    if operation.chain_id != context.chain_id:
        text = f"The operation is for chain {operation.chain_id[:64]!r}; this is {context.chain_id}."
        raise Refused(Reason.WrongChain, text)
    left = operation.valid_until_ms - context.time_ms
    if left < 0:
        raise Refused(Reason.Expired, f"The operation's validity ended {-left} ms before the block.")
    if left > allocation.REPLAY_WINDOW_MS:
        raise Refused(Reason.ValidityTooLong, f"The operation would be valid for {left} ms more.")


def _signer(context: Context) -> Signer:
    key_id = context.decoded.read.signer
    signer = context.node(key_id)
    if signer is None:
        raise Refused(Reason.UnknownSigner, f"Key {key_id.hex()[:16]} is not enrolled.")
    context.verify(context.decoded.once(_signature, signer.public, signer.public_id))
    seconds = context.time_ms // 1000
    if not signer.body.not_before <= seconds < signer.body.not_after:
        raise Refused(Reason.CertificateInvalid, f"{signer.body.subject}'s certificate is not valid at block time.")
    return signer


def signature(base: Reader, decoded: operations.Decoded) -> Signature | None:
    """The check of an enrolled signer's signature, which `judge` will ask for; None for any other signer."""
    signer = signer_of(base, decoded.read.signer)
    return None if signer is None else decoded.once(_signature, signer.public, signer.public_id)


def _signature(decoded: operations.Decoded, public: bytes, public_id: bytes) -> Signature:
    read = decoded.read
    return Signature(public, read.signature, read.signed, public_id + read.claim)
