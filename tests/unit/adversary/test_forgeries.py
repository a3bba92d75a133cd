"""Every forgery against the real admission path (decode, judge, execute) on a state in which its original is right.

Signatures and proofs are really verified; an answer is remembered by its check's key, as the ledger does, so that
thousands of forgeries signed as one batch cost one verification.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from hypermesh import operations
from hypermesh.proofs.challenges import memory_owner
from hypermesh.proofs.parameters import MEMORY_DEMO
from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import Check, verify_now
from hypermesh_ledger.execution import Block, Vote, execute, judge
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.validators import address_of, possession, seat_of

from ...adversary.forgeries import forgeries
from ...adversary.memories import Claim, block
from ...adversary.scenes import Forgery, Original, Scene, sign
from ...builders import Member, TrustRoot, allocation, member, registration
from ..ledger.proofs import asked as challenged
from ..ledger.proofs import commitment, proof, small
from ..ledger.world import CHAIN, CPU, MEMORY, SPACE, STORAGE, TIME, WORK, World

LEAST = 10_000
IN_A_BLOCK = 500
AGAIN = {
    "enrol_node": None,
    "commit_work": None,
    "prove": Reason.AlreadyProven,
    "commit_memory": None,
    "prove_memory": Reason.AlreadyProven,
    "register_asset": None,
    "update_asset": Reason.RevisionConflict,
    "retire_asset": Reason.AssetRetired,
    "allocate": None,
    "release": Reason.AllocationEnded,
    "join_validator": None,
    "leave_validator": Reason.NotValidator,
    "delegate": Reason.RevisionConflict,
    "revoke": Reason.RevisionConflict,
}
"""What the same bytes get once they are committed: None for the first commit's answer."""
HOW_TO_ADD = """
Stage (tests/unit/adversary/test_forgeries.py): bring the world into a state where one of each is acceptable, and add it
to the originals of Stage.scene(). AGAIN, there: what the same bytes get once they are committed.
tests/adversary/forgeries.py: LAWFUL names the fields that its signer may choose, out_of_bounds their wrong values,
EXPECTED what each wrong field is refused for, OF_STRANGERS what somebody else's signature is.
tests/integration/ledger/test_forgeries.py: an original too, where a lone running ledger would accept it.
"""
RENEWED = frozenset({"join_validator"})
"""A candidacy is made to be asked for again: that renews the date of its own record, while it is valid."""
OTHER_CLUSTER = "6a1f0c52-0000-4000-8000-000000000002"


class Remembering:
    """verify_now, each answer computed once."""

    def __init__(self) -> None:
        self._answers: dict[bytes, tuple[Reason, str] | None] = {}

    def __call__(self, check: Check) -> None:
        key = check.key
        if key not in self._answers:
            try:
                verify_now(check)
            except Refused as refusal:
                self._answers[key] = refusal.reason, refusal.message
            else:
                self._answers[key] = None
        answer = self._answers[key]
        if answer is not None:
            raise Refused(*answer)


def consensus_key(who: Member) -> MLDSA65PrivateKey:
    """The ML-DSA key of a validator's CometBFT, always the same one."""
    return MLDSA65PrivateKey.from_seed_bytes(who.key_id)


def with_memory() -> proofs_pb2.ProofParameters:
    """Small ones, with a few blocks of memory."""
    params = small()
    params.memory.CopyFrom(MEMORY_DEMO)
    params.memory.slab_bytes, params.memory.samples, params.memory.passes = 1 << 20, 32, 4
    return params


class Stage(World):
    """A world with a past: two nodes and two operators of two clusters, assets, an allocation, tickets of two epochs.

    `prover` committed its work but did not prove it yet; `fresh` did neither in this epoch; `newcomer` is not enrolled.
    `founder` makes the blocks, `waiting` has asked for a seat, `candidate` not yet.
    """

    def __init__(self, root: TrustRoot, plot: Path) -> None:
        super().__init__(root, with_memory())
        self.operator = self.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
        self.stranger = self.enrol(trust_pb2.ROLE_OPERATOR, "other-operator", cluster=2, cluster_uid=OTHER_CLUSTER)
        self.validator = self.enrol(trust_pb2.ROLE_VALIDATOR, "ledger-0")
        self.node = self.enrol(trust_pb2.ROLE_NODE, "node-1")
        self.neighbour = self.enrol(trust_pb2.ROLE_NODE, "node-2")
        self.prover = self.enrol(trust_pb2.ROLE_NODE, "node-3")
        self.fresh = self.enrol(trust_pb2.ROLE_NODE, "node-4")
        self.newcomer = member(root, trust_pb2.ROLE_NODE, "node-5")
        self.cpu_id, self.second_id = self.node.asset_id(CPU, "cpu-0"), self.node.asset_id(CPU, "cpu-1")
        self.neighbour_cpu = self.neighbour.asset_id(CPU, "cpu-0")
        self.win(self.node, self.cpu_id, self.second_id)
        self.win(self.neighbour, self.neighbour_cpu)
        self.old = self.refs(self.operator, self.node, self.cpu_id)
        self.old_epoch = self.epoch.number
        params = self.genesis.proofs
        self.block(after_ms=params.epoch_ms * (params.grace_epochs + 2))
        self.win(self.node, self.cpu_id, self.second_id)
        self.win(self.neighbour, self.neighbour_cpu)
        self.cpu = self.register(self.node, registration(self.node, CPU, "cpu-0", 100, price="1000"))
        self.idle = self.register(self.node, registration(self.node, STORAGE, "pool-1", 7, work_device=self.cpu_id))
        self.register(self.neighbour, registration(self.neighbour, CPU, "cpu-0", 100))
        self.fresh_cpu = self.fresh.asset_id(CPU, "cpu-0")
        self.win(self.fresh, self.fresh_cpu)
        self.register(self.fresh, registration(self.fresh, CPU, "cpu-0", 100))
        self.held = allocation(self.node, self.cpu, "held", 3)
        assert self.do(self.spend(self.operator, allocate=self.held)).reason is None
        device = self.prover.asset_id(CPU, "cpu-0")
        assert self.do(self.tx(self.prover, commit_work=commitment(self, self.prover, device))).reason is None
        self.proof = proof(self, self.prover, plot)
        claimed = self.claim(self.prover)
        assert self.do(self.tx(self.prover, commit_memory=self.commit(claimed))).reason is None
        self.block()
        held = read(self.state, keys.memory(self.prover.key_id, claimed.commitment.asset), ledger_pb2.MemoryRecord)
        assert held is not None
        self.shown = ledger_pb2.ProveMemory(epoch=self.epoch.number, proof=claimed.proof(held.seed))
        self.founder, self.waiting, self.candidate = (
            self.enrol(trust_pb2.ROLE_VALIDATOR, f"ledger-{number}") for number in (1, 2, 3)
        )
        founding = self.tx(self.founder, join_validator=self.joining(self.founder))
        vote = Vote(address_of(consensus_key(self.founder).public_key().public_bytes_raw()), True)
        outcome = execute(self.state, replace(next_block(self, founding), votes=[vote]), verify_now)
        assert [result.reason for result in outcome.results] == [None]
        self.state.write(outcome.writes)
        assert self.do(self.tx(self.waiting, join_validator=self.joining(self.waiting))).reason is None

        given = ledger_pb2.Delegate(delegate=self.prover.key_id, rights=[2], until_ms=self.now_ms + 86_400_000)
        for owner in (self.node, self.operator):
            assert self.do(self.tx(owner, delegate=given)).reason is None

    def claim(self, node: Member) -> Claim:
        """Two slabs of a node's memory, really filled."""
        params, asset = self.genesis.proofs.memory, node.asset_id(MEMORY, "ram-0")
        c = challenged(self, node)
        owner = memory_owner(CHAIN, node.key_id)
        return Claim(owner, asset, c, 2, params, lambda number: block(owner, asset, number, params))

    def commit(self, claimed: Claim) -> ledger_pb2.CommitMemory:
        return ledger_pb2.CommitMemory(epoch=self.epoch.number, commitment=claimed.commitment, hardware_id="ram-0")

    def joining(self, who: Member) -> ledger_pb2.JoinValidator:
        """With a consensus key of its own."""
        key = consensus_key(who)
        shown = key.sign(possession(CHAIN, who.key_id))
        return ledger_pb2.JoinValidator(consensus_key=key.public_key().public_bytes_raw(), possession=shown)

    def spend(self, signer: Member, **kind: object) -> bytes:
        return self.tx(signer, self.refs(signer, self.node, self.cpu_id), **kind)

    def scene(self) -> Scene:
        """One original of each kind."""
        update = ledger_pb2.UpdateAsset(asset_id=self.cpu.asset_id, revision=1, capacity=90, sharing=self.cpu.sharing)
        asked = allocation(self.node, self.cpu, "asked", 5)
        asked.max_price_per_hour, asked.min_trust_score = "1000", 1
        pool = registration(self.node, STORAGE, "pool-0", 1 << 30, work_device=self.cpu_id)
        work = commitment(self, self.fresh, self.fresh_cpu)
        leave = ledger_pb2.Delegate(
            delegate=self.fresh.key_id, rights=[1], until_ms=self.now_ms + 86_400_000, revision=1
        )
        refs = self.refs(self.operator, self.node, self.cpu_id)
        own = self.refs(self.node, self.node, self.cpu_id)
        return Scene(
            originals=[
                Original(self.newcomer, self.operation(enrol_node={"certificate": self.newcomer.certificate})),
                Original(self.fresh, self.operation(commit_work=work)),
                Original(self.prover, self.operation(prove=self.proof)),
                Original(self.fresh, self.operation(commit_memory=self.commit(self.claim(self.fresh)))),
                Original(self.prover, self.operation(prove_memory=self.shown)),
                Original(self.node, self.operation(register_asset=pool), own),
                Original(self.node, self.operation(update_asset=update), own),
                Original(self.node, self.operation(retire_asset={"asset_id": self.idle.asset_id, "revision": 1}), own),
                Original(self.operator, self.operation(allocate=asked), refs),
                Original(self.operator, self.operation(release={"allocation_id": self.held.allocation_id}), refs),
                Original(self.candidate, self.operation(join_validator=self.joining(self.candidate))),
                Original(self.waiting, self.operation(leave_validator={})),
                Original(self.node, self.operation(delegate=leave)),
                Original(self.operator, self.operation(revoke={"delegate": self.prover.key_id, "revision": 1})),
            ],
            others={
                "neighbour": self.neighbour,
                "operator of another cluster": self.stranger,
                "validator": self.validator,
                "nobody": member(self.root, trust_pb2.ROLE_NODE, "node-6"),
            },
            foreign={
                "space": [self.newest(SPACE, self.neighbour, self.neighbour.key_id)],
                "stake": [self.stake(self.stranger, self.epoch.number), self.stake(self.neighbour, self.epoch.number)],
                "work": [
                    self.newest(WORK, self.neighbour, self.neighbour_cpu),
                    self.newest(WORK, self.node, self.second_id),
                ],
                "time": [self.newest(TIME, self.neighbour, self.neighbour.key_id)],
            },
            stale={"space": [self.old.space], "work": [self.old.work], "time": [self.old.time]},
            stale_epoch=self.old_epoch,
        )

    def stake(self, who: Member, epoch: int) -> bytes:
        return stake_ticket_hash(who.key_id, who.body.role, who.certificate, epoch)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(TrustRoot(), tmp_path_factory.mktemp("plot"))


@pytest.fixture(scope="module")
def scene(stage: Stage) -> Scene:
    return stage.scene()


def seeded() -> random.Random:
    """FORGERY_SEED repeats a run (keys, and so signatures, are new each time)."""
    seed = int(os.environ.get("FORGERY_SEED") or random.randrange(1 << 32))
    print(f"FORGERY_SEED={seed}")
    return random.Random(seed)


def transaction(original: Original) -> bytes:
    return operations.canonical(sign(original.signer, operations.canonical(original.operation), original.refs))


def next_block(stage: World, *txs: bytes) -> Block:
    return Block(stage.height + 1, stage.now_ms + 1, b"h" * 32, txs)


def test_every_kind_has_an_original_and_each_is_accepted(stage: Stage, scene: Scene) -> None:
    kinds = {field.name for field in ledger_pb2.Operation.DESCRIPTOR.oneofs_by_name["kind"].fields}
    without = kinds - {original.kind for original in scene.originals}
    assert not without, f"no forgeries are made of {sorted(without)}. {HOW_TO_ADD}"
    for original in scene.originals:
        decoded = operations.decode(transaction(original))
        assert judge(stage.state, next_block(stage), decoded, verify_now) == stage.height + 1, original.kind


def admission(stage: World, tx: bytes, verify: Remembering) -> Refused | None:
    """The ledger's answer to a client: None when it would be accepted. Whatever else is raised fails the test."""
    try:
        judge(stage.state, next_block(stage), operations.decode(tx), verify)
    except Refused as refusal:
        return refusal
    return None


def chunks(found: list[Forgery]) -> Iterator[list[Forgery]]:
    for first in range(0, len(found), IN_A_BLOCK):
        yield found[first : first + IN_A_BLOCK]


def test_no_forgery_is_accepted_and_each_refusal_names_its_reason(stage: Stage, scene: Scene) -> None:
    """Admission (as ingress does it) and a block of them (as a lying proposer would), with the same answer."""
    found = forgeries(scene, seeded())
    assert len(found) >= LEAST
    verify, begun = Remembering(), dict(stage.state.entries)
    idle = execute(stage.state, next_block(stage), verify).writes
    reasons: Counter[str] = Counter()
    wrong: list[str] = []
    for chunk in chunks(found):
        answers = []
        for forgery in chunk:
            refusal = admission(stage, forgery.tx, verify)
            answers.append(refusal and (refusal.reason, refusal.message))
            if refusal is None or not refusal.message or not isinstance(refusal.reason, Reason):
                wrong.append(f"{forgery.name}: {refusal}: {forgery.tx.hex()}")
            elif refusal.reason not in forgery.reasons:
                wrong.append(f"{forgery.name}: expected {sorted(forgery.reasons)}: {refusal}")
            reasons[str(refusal and refusal.reason)] += 1
        outcome = execute(stage.state, next_block(stage, *[forgery.tx for forgery in chunk]), verify)
        assert [result.reason and (result.reason, result.message) for result in outcome.results] == answers
        if outcome.writes != idle:
            wrong.append(f"written: {sorted(outcome.writes.keys() - idle.keys())}")
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(each[:400] for each in wrong[:20])
    assert stage.state.entries == begun
    print(f"{len(found)} forgeries refused: {dict(reasons.most_common())}")


def test_a_replay_changes_nothing_twice_nor_anywhere_else(tmp_path: Path) -> None:
    """Every original once; then the same bytes again: at once, after their end, after their validity, elsewhere."""
    here = Stage(TrustRoot(), tmp_path)
    again = here.scene()
    txs = [transaction(original) for original in again.originals]
    elsewhere = Stage(here.root, tmp_path)
    elsewhere.state.write({keys.CHAIN_ID: b"hypermesh-other"})
    assert {result.reason for result in elsewhere.block(*txs)} == {Reason.WrongChain}
    assert [result.reason for result in here.block(*txs)] == [None] * len(txs)
    here.block()  # draws the seed for the memory
    committed = dict(here.state.entries)
    for result, original in zip(here.block(*txs), again.originals, strict=True):
        assert result.reason == AGAIN[original.kind], original.kind
        if original.kind not in RENEWED:
            assert result.reason is not None or result.height < here.height, "said to be new"
    renewed = {key for key in committed if here.state.entries[key] != committed[key]}
    assert renewed == {keys.validator(seat_of(here.candidate.body))}
    assert here.state.entries.keys() == committed.keys()
    allocated = next(original for original in again.originals if original.kind == "allocate")
    gone = here.spend(here.operator, release={"allocation_id": allocated.operation.allocate.allocation_id})
    assert here.do(gone).reason is None
    assert here.do(transaction(allocated)).reason is Reason.AllocationEnded
    late = again.originals[0].operation.valid_until_ms - here.now_ms + 1
    assert {result.reason for result in here.block(*txs, after_ms=late)} == {Reason.Expired}
